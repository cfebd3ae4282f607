"""An attention layer: the number of heads kept, down to none."""

import copy
from collections.abc import Iterator

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from diffnas.architecture import TEACHER, Edit
from diffnas.settings import SpaceSettings

KIND = "attention"


def matches(module: nn.Module) -> bool:
    """Whether this slot understands the module: plain heads, nothing normalised across them."""
    return (
        type(module) is Attention
        and module.spatial_norm is None
        and module.added_kv_proj_dim is None
        and module.norm_q is None
        and module.norm_k is None
        and module.inner_dim == module.inner_kv_dim
        and module.to_out is not None
        and not module.fused_projections
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
    for projection in ("to_q", "to_k", "to_v"):
        for name in (f"{projection}.weight", f"{projection}.bias"):
            if name in own:
                own[name] = own[name][:inner]
    own["to_out.0.weight"] = own["to_out.0.weight"][:, :inner]
    return own


@torch.no_grad()
def ordered(layer: Attention) -> Attention:
    """The same function with its heads sorted by ||W_v|| * ||W_out||, most important first."""
    new = copy.deepcopy(layer)
    heads = layer.heads
    values = layer.to_v.weight.unflatten(0, (heads, -1)).norm(dim=(1, 2))
    reads = layer.to_out[0].weight.unflatten(1, (heads, -1)).norm(dim=(0, 2))
    rows = torch.arange(layer.inner_dim, device=values.device).unflatten(0, (heads, -1))
    order = rows[(values * reads).argsort(descending=True, stable=True)].flatten()
    for projection in (new.to_q, new.to_k, new.to_v):
        projection.weight.copy_(projection.weight[order].clone())
        if projection.bias is not None:
            projection.bias.copy_(projection.bias[order].clone())
    new.to_out[0].weight.copy_(new.to_out[0].weight[:, order].clone())
    return new
