"""An attention layer: the number of heads kept, down to none."""

import copy
import itertools
from collections.abc import Iterator
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from diffnas.architecture import TEACHER, Edit
from diffnas.settings import SpaceSettings

KIND = "attention"


def matches(module: nn.Module) -> bool:
    """Whether this slot understands the module: plain heads of one stream, nothing normalised."""
    return (
        type(module) is Attention
        and module.added_kv_proj_dim is None
        and module.norm_q is None
        and module.norm_k is None
        and module.to_out is not None
        and cuttable(module)
    )


def cuttable(module: Any) -> bool:
    """Whether single heads can be left out: they are of one size, and normalised one by one."""
    size = module.inner_dim // module.heads
    norms = ("norm_q", "norm_k", "norm_added_q", "norm_added_k")
    found = [getattr(module, name, None) for name in norms]
    return (
        getattr(module, "spatial_norm", None) is None
        and module.inner_dim == getattr(module, "inner_kv_dim", module.inner_dim)
        and not module.fused_projections
        and all(w.numel() == size for norm in found if norm is not None for w in norm.parameters())
    )


def edits(layer: Attention, settings: SpaceSettings) -> Iterator[tuple[str, Edit | None]]:
    """Options by name; without heads the whole layer is left out."""
    yield TEACHER, None
    if settings.preset == "paper":
        return
    ratios = (0.0,) if settings.preset == "stock" else settings.attention_heads
    for heads in fewer(layer.heads, ratios):
        yield (
            (f"heads={heads}", {"kind": KIND, "heads": heads})
            if heads
            else ("skip", {"kind": "skip"})
        )


def fewer(of: int, ratios: tuple[float, ...]) -> list[int]:
    """Those shares of a number, at least 1 but for a share of 0, falling, each once."""
    found = (max(1, round(of * ratio)) if ratio else 0 for ratio in sorted(ratios, reverse=True))
    return [number for number in dict.fromkeys(found) if number != of]


def some(of: int, settings: SpaceSettings) -> list[int]:
    """Fewer heads, but not none, falling."""
    wanted = settings.attention_heads if settings.preset == "full" else ()
    return [heads for heads in fewer(of, wanted) if heads]


class SharedWeights(nn.Module):
    """One set of weights for all options: the first k heads are the k most important ones."""

    def __init__(self, layer: Attention, options: list[Edit | None]) -> None:
        super().__init__()
        self.layer = ordered(layer)

    def weights(self, edit: Edit | None) -> dict[str, Tensor]:
        """Views into the shared weights, named as in the option's plain module."""
        if edit is None:
            return views(self.layer, None)
        return views(self.layer, 0 if edit["kind"] == "skip" else edit["heads"])


def views(layer: Attention, heads: int | None) -> dict[str, Tensor]:
    """Its weights with the first heads alone; all with None."""
    own: dict[str, Tensor] = dict(layer.named_parameters())
    if heads is None:
        return own
    if heads == 0:
        return {}
    inner = heads * (layer.inner_dim // layer.heads)
    for projection, _ in _inward(layer):
        for name in (f"{projection}.weight", f"{projection}.bias"):
            if name in own:
                own[name] = own[name][:inner]
    for projection, _ in _outward(layer):
        own[f"{projection}.weight"] = own[f"{projection}.weight"][:, :inner]
    return own


def _inward(layer: Any) -> list[tuple[str, Any]]:
    """Projections whose rows are heads, by name; a second stream has its own."""
    names = ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj")
    found = ((name, getattr(layer, name, None)) for name in names)
    return [(name, each) for name, each in found if each is not None]


def _outward(layer: Any) -> list[tuple[str, Any]]:
    """Projections whose columns are heads, by name; none where its parent has the way out."""
    own = getattr(layer, "to_out", None)
    found = (
        ("to_out.0", None if own is None else own[0]),
        ("to_add_out", getattr(layer, "to_add_out", None)),
    )
    return [(name, each) for name, each in found if each is not None]


@torch.no_grad()
def ordered(layer: Attention, order: Tensor | None = None) -> Attention:
    """The same function with its channels in that order: that of its heads' importance."""
    new = copy.deepcopy(layer)
    if order is None:
        outs = [each.weight for _, each in _outward(layer)]
        order = order_of(layer.heads, values_of(layer), outs)
    for _, projection in _inward(new):
        for parameter in projection.parameters():
            parameter.copy_(parameter[order].clone())
    for _, projection in _outward(new):
        projection.weight.copy_(projection.weight[:, order].clone())
    return new


def values_of(layer: Attention) -> list[Tensor]:
    """The weights of its values, (channels, any), of each stream."""
    return [each.weight for name, each in _inward(layer) if name in ("to_v", "add_v_proj")]


def order_of(heads: int, values: list[Tensor], outs: list[Tensor]) -> Tensor:
    """Channels of so many heads, sorted by ||W_v|| * ||W_out||, most important first.

    With a second stream, by the sum of both. ``values``: (channels, any); ``outs``: what reads the
    heads, (any, channels).
    """
    importance: Any = 0
    # Where a stream has no way out, its values still go out by the other's.
    for value, out in itertools.zip_longest(values, outs, fillvalue=outs[0]):
        reads = out.unflatten(1, (heads, -1)).norm(dim=(0, 2))
        importance = importance + value.unflatten(0, (heads, -1)).norm(dim=(1, 2)) * reads
    rows = torch.arange(len(values[0]), device=importance.device).unflatten(0, (heads, -1))
    return rows[importance.argsort(descending=True, stable=True)].flatten()
