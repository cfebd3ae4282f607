"""A transformer's feed-forward: its inner width."""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from diffusers.models.activations import GEGLU, GELU, ApproximateGELU, SwiGLU
from diffusers.models.attention import FeedForward
from torch import Tensor, nn

from diffnas.architecture import TEACHER, Edit
from diffnas.settings import SpaceSettings

KIND = "feed_forward"


def matches(module: Any) -> bool:
    """Whether this slot understands the module."""
    return (
        type(module) is FeedForward
        and type(module.net[0]) in (GEGLU, GELU, ApproximateGELU, SwiGLU)
        and type(module.net[2]) is nn.Linear
    )


def edits(layer: Any, settings: SpaceSettings) -> Iterator[tuple[str, Edit | None]]:
    """Options by name."""
    yield TEACHER, None
    for width in widths(layer, settings):
        yield f"width={width}", {"kind": KIND, "width": width}


def widths(layer: Any, settings: SpaceSettings) -> list[int]:
    """Smaller inner widths, in multiples, falling."""
    return narrower(layer.net[2].in_features, settings)


def narrower(full: int, settings: SpaceSettings) -> list[int]:
    """The shares of a width that settings ask for, in multiples, falling."""
    step = settings.multiple_of
    wanted = settings.feed_forward_widths if settings.preset == "full" else ()
    ratios = sorted(wanted, reverse=True)
    found = (max(step, round(full * ratio / step) * step) for ratio in ratios)
    return [width for width in dict.fromkeys(found) if width < full]


class SharedWeights(nn.Module):
    """One set of weights for all options: the first k channels are the k most important ones."""

    def __init__(self, layer: Any, options: list[Edit | None]) -> None:
        super().__init__()
        self.layer = ordered(layer)

    def weights(self, edit: Edit | None) -> dict[str, Tensor]:
        """Views into the shared weights, named as in the option's plain module."""
        return views(self.layer, None if edit is None else edit["width"])


def views(layer: Any, width: int | None) -> dict[str, Tensor]:
    """Its weights with the first inner channels alone; all with None."""
    own: dict[str, Tensor] = dict(layer.named_parameters())
    if width is None:
        return own
    for name in ("net.0.proj.weight", "net.0.proj.bias"):
        if name in own:
            own[name] = _by_part(layer, own[name])[:, :width].flatten(0, 1)
    own["net.2.weight"] = own["net.2.weight"][:, :width]
    return own


def _by_part(layer: Any, rows: Tensor) -> Tensor:
    """Rows of the first projection, (parts, channels, ...): values alone, or values and gates."""
    return rows.unflatten(0, (-1, layer.net[2].in_features))


@torch.no_grad()
def ordered(layer: Any) -> Any:
    """The same function, its inner channels sorted by ||W_in|| * ||W_out||, most important first.

    W_in: the weights of the values, without those of gates.
    """
    new = copy.deepcopy(layer)
    values = _by_part(layer, layer.net[0].proj.weight)[0].norm(dim=1)
    order = (values * layer.net[2].weight.norm(dim=0)).argsort(descending=True, stable=True)
    for parameter in new.net[0].proj.parameters():
        parameter.copy_(_by_part(layer, parameter)[:, order].flatten(0, 1).clone())
    new.net[2].weight.copy_(new.net[2].weight[:, order].clone())
    return new
