"""A transformer's feed-forward: its inner width."""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from diffusers.models.activations import GEGLU, GELU, ApproximateGELU, SwiGLU
from diffusers.models.attention import FeedForward
from diffusers.models.transformers.transformer_flux2 import Flux2FeedForward
from torch import Tensor, nn

from diffnas.architecture import TEACHER, Edit
from diffnas.settings import SpaceSettings
from diffnas.slots import parts

KIND = "feed_forward"


def matches(module: Any) -> bool:
    """Whether this slot understands the module."""
    return (
        type(module) is FeedForward
        and type(module.net[0]) in (GEGLU, GELU, ApproximateGELU, SwiGLU)
        and type(module.net[2]) is nn.Linear
    )


def understood(module: Any) -> bool:
    """Whether this slot, or that of a whole layer, understands the module."""
    return type(module) is Flux2FeedForward or matches(module)


def edits(layer: Any, settings: SpaceSettings) -> Iterator[tuple[str, Edit | None]]:
    """Options by name."""
    yield TEACHER, None
    for width in widths(layer, settings):
        yield f"width={width}", {"kind": KIND, "width": width}


def widths(layer: Any, settings: SpaceSettings) -> list[int]:
    """Smaller inner widths, in multiples, falling."""
    return narrower(_width(layer), settings)


def narrower(full: int, settings: SpaceSettings) -> list[int]:
    """The shares of a width that settings ask for, in multiples, falling."""
    wanted = settings.feed_forward_widths if settings.preset == "full" else ()
    found = parts.multiples(full, wanted, settings.multiple_of)
    return [width for width in found if width < full]


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
    inward, outward = _names(layer)
    for name in (f"{inward}.weight", f"{inward}.bias"):
        if name in own:
            own[name] = _by_part(layer, own[name])[:, :width].flatten(0, 1)
    own[f"{outward}.weight"] = own[f"{outward}.weight"][:, :width]
    return own


def _names(layer: Any) -> tuple[str, str]:
    """Of the projections in and out."""
    packed = isinstance(layer, Flux2FeedForward)
    return ("linear_in", "linear_out") if packed else ("net.0.proj", "net.2")


def _width(layer: Any) -> int:
    return int(layer.get_submodule(_names(layer)[1]).in_features)


def _by_part(layer: Any, rows: Tensor) -> Tensor:
    """Rows of the first projection, (parts, channels, ...): values and, before or behind, gates."""
    return rows.unflatten(0, (-1, _width(layer)))


@torch.no_grad()
def ordered(layer: Any) -> Any:
    """The same function, its inner channels sorted by ||W_in|| * ||W_out||, most important first.

    W_in: the weights of the values, without those of gates.
    """
    new = copy.deepcopy(layer)
    inward, outward = (new.get_submodule(name) for name in _names(new))
    values = -1 if isinstance(layer, Flux2FeedForward) else 0  # there gates come first
    importance = _by_part(new, inward.weight)[values].norm(dim=1) * outward.weight.norm(dim=0)
    order = importance.argsort(descending=True, stable=True)
    for parameter in inward.parameters():
        parameter.copy_(_by_part(layer, parameter)[:, order].flatten(0, 1).clone())
    outward.weight.copy_(outward.weight[:, order].clone())
    return new
