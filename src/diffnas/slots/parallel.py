"""A transformer layer that attends and, beside it, widens, all in one: heads, channels, or none.

One projection leads into both and one out (FLUX.2), of image and text as one sequence.
"""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from diffusers.models.transformers.transformer_flux2 import Flux2SingleTransformerBlock
from torch import Tensor, nn

from diffnas.architecture import Edit
from diffnas.settings import SpaceSettings
from diffnas.slots import attention, beside

KIND = "parallel"


def matches(module: Any) -> bool:
    """Whether this slot understands the module."""
    return type(module) is Flux2SingleTransformerBlock


def edits(module: Any, settings: SpaceSettings) -> Iterator[tuple[str, Edit | None]]:
    """Options by name."""
    return beside.edits(KIND, module, module.attn.heads, module.attn.mlp_hidden_dim, settings)


class SharedWeights(nn.Module):
    """One set of weights for all options: what comes first in each part is the most important."""

    def __init__(self, module: Any, options: list[Edit | None]) -> None:
        super().__init__()
        self.module = ordered(module)

    def weights(self, edit: Edit | None) -> dict[str, Tensor]:
        """Views into the shared weights, named as in the option's plain module.

        What is left of the two projections is joined anew, as each reads or gives both parts.
        """
        edit = edit or {}
        if edit.get("kind") == "skip":
            return {}
        found: dict[str, Tensor] = dict(self.module.named_parameters())
        attn = self.module.attn
        inner = edit.get("heads", attn.heads) * attn.head_dim
        width = edit.get("width", attn.mlp_hidden_dim)
        if (inner, width) == (attn.inner_dim, attn.mlp_hidden_dim):
            return found
        for name in ("attn.to_qkv_mlp_proj.weight", "attn.to_qkv_mlp_proj.bias"):
            if name in found:
                attended, widened = _rows(attn, found[name])
                found[name] = _joined(attended[:, :inner], widened[:, :width])
        attended, widened = _columns(attn)
        found["attn.to_out.weight"] = torch.cat([attended[:, :inner], widened[:, :width]], dim=1)
        return found


def _rows(attn: Any, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Of the projection in: queries, keys and values (3, N, ...); gates and values (2, N, ...)."""
    attended, widened = rows.tensor_split([3 * attn.inner_dim])
    return attended.unflatten(0, (3, -1)), widened.unflatten(0, (attn.mlp_mult_factor, -1))


def _joined(attended: Tensor, widened: Tensor) -> Tensor:
    return torch.cat([attended.flatten(0, 1), widened.flatten(0, 1)])


def _columns(attn: Any) -> tuple[Tensor, ...]:
    """Of the projection out: what reads the heads, what reads the channels beside them."""
    return attn.to_out.weight.tensor_split([attn.inner_dim], dim=1)


@torch.no_grad()
def ordered(module: Any) -> Any:
    """The same function, heads and channels sorted by ||W_in|| * ||W_out||, most important first.

    W_in: of the values, without queries, keys and gates.
    """
    new = copy.deepcopy(module)
    attn = new.attn
    from_heads, from_channels = _columns(module.attn)
    attended, widened = _rows(attn, module.attn.to_qkv_mlp_proj.weight)
    heads = attention.order_of(attn.heads, [attended[-1]], [from_heads])
    importance = widened[-1].norm(dim=1) * from_channels.norm(dim=0)
    channels = importance.argsort(descending=True, stable=True)
    for parameter in attn.to_qkv_mlp_proj.parameters():
        attended, widened = _rows(attn, parameter.clone())
        parameter.copy_(_joined(attended[:, heads], widened[:, channels]))
    attn.to_out.weight.copy_(torch.cat([from_heads[:, heads], from_channels[:, channels]], dim=1))
    return new
