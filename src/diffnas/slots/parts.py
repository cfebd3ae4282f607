"""Slots of several parts, such as heads and feed-forward: options and weights put together."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from diffnas.architecture import TEACHER, Edit
from diffnas.settings import SpaceSettings


def options(
    kind: str, reduced: Iterable[Edit], settings: SpaceSettings
) -> Iterator[tuple[str, Edit | None]]:
    """A layer's options by name: the teacher's own, those with less, and none at all."""
    yield TEACHER, None
    if settings.preset == "paper":
        return
    for edit in reduced:
        yield name(edit), {"kind": kind, **edit}
    if settings.transformer_skip:
        yield "skip", {"kind": "skip"}


def combinations(shares: Mapping[str, Sequence[Any]]) -> list[Edit]:
    """Edits that take a share of at least one part, or leave it: each with each of the others."""
    found = (
        {part: share for part, share in zip(shares, chosen, strict=True) if share is not None}
        for chosen in itertools.product(*([None, *each] for each in shares.values()))
    )
    return [edit for edit in found if edit]


def multiples(full: int, ratios: Iterable[float], step: int) -> list[int]:
    """Those shares of a width in multiples of ``step``, one at least; falling, each once."""
    falling = sorted(ratios, reverse=True)
    return list(dict.fromkeys(max(step, round(full * ratio / step) * step) for ratio in falling))


def name(edit: Edit) -> str:
    """Of an option: ``heads=2 width=64``; of a list, its length."""
    shown = {part: len(share) if isinstance(share, list) else share for part, share in edit.items()}
    return " ".join(f"{part}={share}" for part, share in shown.items())


def views(layer: nn.Module, parts: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The layer's own weights, with those views in the place of its parts'."""
    own: dict[str, Tensor] = {
        weight: value
        for weight, value in layer.named_parameters()
        if weight.partition(".")[0] not in parts
    }
    for part, weights in parts.items():
        own |= {f"{part}.{weight}": value for weight, value in weights.items()}
    return own


def exact(weight: Tensor) -> Tensor:
    """In double precision, on the CPU, as not every device knows it; a meta tensor where it is."""
    return (weight if weight.is_meta else weight.cpu()).double()
