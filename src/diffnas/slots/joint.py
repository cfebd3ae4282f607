"""A transformer layer of two streams, image and text (MMDiT): heads, feed-forwards, or left out.

What its norms are told, too, where the layer has projections of its own for that.
"""

import copy
from collections.abc import Iterator
from typing import Any

from diffusers.models.attention import JointTransformerBlock
from diffusers.models.transformers.transformer_flux import FluxTransformerBlock
from diffusers.models.transformers.transformer_flux2 import Flux2TransformerBlock
from torch import Tensor, nn

from diffnas.architecture import Edit
from diffnas.settings import SpaceSettings
from diffnas.slots import attention, feed_forward, modulation, parts

KIND = "joint"


def matches(module: Any) -> bool:
    """Whether this slot understands the module."""
    if type(module) not in (JointTransformerBlock, FluxTransformerBlock, Flux2TransformerBlock):
        return False
    forwards = [module.ff] if module.ff_context is None else [module.ff, module.ff_context]
    return all(map(attention.cuttable, _attentions(module).values())) and all(
        map(feed_forward.understood, forwards)
    )


def _attentions(module: Any) -> dict[str, Any]:
    found = {"attn": module.attn, "attn2": getattr(module, "attn2", None)}
    return {name: each for name, each in found.items() if each is not None}


def edits(module: Any, settings: SpaceSettings) -> Iterator[tuple[str, Edit | None]]:
    """Options by name: each share of each part with each of the others.

    Some heads always stay: through them alone the image sees the text.
    """
    context = module.ff_context
    shares = {
        "heads": attention.some(module.attn.heads, settings),
        "width": feed_forward.widths(module.ff, settings),
        "context_width": [] if context is None else feed_forward.widths(context, settings),
        "modulation": modulation.ranks(module, settings),
    }
    yield from parts.options(KIND, parts.combinations(shares), settings)


class SharedWeights(nn.Module):
    """One set of weights for all options: what comes first in each part is the most important."""

    def __init__(self, module: Any, options: list[Edit | None]) -> None:
        super().__init__()
        self.module = copy.deepcopy(module)
        for name, each in _attentions(self.module).items():
            setattr(self.module, name, attention.ordered(each))
        self.module.ff = feed_forward.ordered(self.module.ff)
        if self.module.ff_context is not None:
            self.module.ff_context = feed_forward.ordered(self.module.ff_context)
        self.factors = modulation.Factors(module, options)

    def weights(self, edit: Edit | None) -> dict[str, Tensor]:
        """Views into the shared weights, named as in the option's plain module."""
        edit = edit or {}
        if edit.get("kind") == "skip":
            return {}
        module = self.module
        found = {
            name: attention.views(each, edit.get("heads"))
            for name, each in _attentions(module).items()
        }
        found["ff"] = feed_forward.views(module.ff, edit.get("width"))
        if module.ff_context is not None:
            found["ff_context"] = feed_forward.views(module.ff_context, edit.get("context_width"))
        found |= self.factors.views(module, edit.get("modulation"))
        return parts.views(module, found)
