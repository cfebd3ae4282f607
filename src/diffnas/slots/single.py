"""A transformer layer that attends and, beside it, widens: heads, channels, or left out (FLUX.1).

One projection leads out of both, of image and text as one sequence.
"""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from diffusers.models.transformers.transformer_flux import FluxSingleTransformerBlock
from torch import Tensor, nn

from diffnas.architecture import Edit
from diffnas.settings import SpaceSettings
from diffnas.slots import attention, beside, modulation, parts

KIND = "single"


def matches(module: Any) -> bool:
    """Whether this slot understands the module."""
    return type(module) is FluxSingleTransformerBlock and attention.cuttable(module.attn)


def edits(module: Any, settings: SpaceSettings) -> Iterator[tuple[str, Edit | None]]:
    """Options by name."""
    return beside.edits(KIND, module, module.attn.heads, module.mlp_hidden_dim, settings)


class SharedWeights(nn.Module):
    """One set of weights for all options: what comes first in each part is the most important."""

    def __init__(self, module: Any, options: list[Edit | None]) -> None:
        super().__init__()
        self.module = ordered(module)
        self.factors = modulation.Factors(module, options)

    def weights(self, edit: Edit | None) -> dict[str, Tensor]:
        """Views into the shared weights, one a copy, named as in the option's plain module."""
        edit = edit or {}
        if edit.get("kind") == "skip":
            return {}
        attn, out = self.module.attn, self.module.proj_out
        width = edit.get("width", self.module.mlp_hidden_dim)
        heads = edit.get("heads", attn.heads)
        less = self.factors.views(self.module, edit.get("modulation"))
        found = parts.views(self.module, {"attn": attention.views(attn, heads), **less})
        for name in ("proj_mlp.weight", "proj_mlp.bias"):
            found[name] = found[name][:width]
        inner = heads * (attn.inner_dim // attn.heads)
        attended, widened = out.weight.tensor_split([attn.inner_dim], dim=1)
        if (inner, width) != (attn.inner_dim, self.module.mlp_hidden_dim):
            # One projection reads both parts, so that what is left of it is joined anew.
            found["proj_out.weight"] = torch.cat([attended[:, :inner], widened[:, :width]], dim=1)
        return found


@torch.no_grad()
def ordered(module: Any) -> Any:
    """The same function, heads and channels sorted by ||W_in|| * ||W_out||, most important first.

    W_in of heads: of their values.
    """
    new = copy.deepcopy(module)
    attended, widened = module.proj_out.weight.tensor_split([module.attn.inner_dim], dim=1)
    heads = attention.order_of(module.attn.heads, attention.values_of(module.attn), [attended])
    importance = module.proj_mlp.weight.norm(dim=1) * widened.norm(dim=0)
    channels = importance.argsort(descending=True, stable=True)
    new.attn = attention.ordered(module.attn, heads)
    for parameter in new.proj_mlp.parameters():
        parameter.copy_(parameter[channels].clone())
    new.proj_out.weight.copy_(torch.cat([attended[:, heads], widened[:, channels]], dim=1))
    return new
