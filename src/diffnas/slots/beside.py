"""What layers that attend and, beside it, widen have in common (FLUX.1, FLUX.2)."""

from collections.abc import Iterator

from torch import nn

from diffnas.architecture import Edit
from diffnas.settings import SpaceSettings
from diffnas.slots import attention, feed_forward, modulation, parts


def edits(
    kind: str, layer: nn.Module, heads: int, width: int, settings: SpaceSettings
) -> Iterator[tuple[str, Edit | None]]:
    """Options by name: each share of either part with each of the other.

    Some heads always stay: through them alone the image sees the text.
    """
    shares = {
        "heads": attention.some(heads, settings),
        "width": feed_forward.narrower(width, settings),
        "modulation": modulation.ranks(layer, settings),
    }
    yield from parts.options(kind, parts.combinations(shares), settings)
