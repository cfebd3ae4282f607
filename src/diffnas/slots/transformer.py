"""A transformer's layer, or a UNet's transformer: heads, feed-forwards, fewer layers, or none.

Of a layer with modulated norms their projection, too.

Of a UNet's transformer all layers are changed alike.
One slot for the whole, because what it leaves out together, projections, norms and modulation too,
no slots of its parts could.
"""

import copy
from collections.abc import Iterator
from typing import Any, cast

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn

from diffnas.architecture import Edit
from diffnas.settings import SpaceSettings
from diffnas.slots import attention, feed_forward, modulation, parts

KIND = "transformer"


def matches(module: Any) -> bool:
    """Whether this slot understands the module: plain layers, all of one shape."""
    if type(module) is Transformer2DModel and not module.is_input_continuous:
        return False
    layers = layers_of(module)
    return bool(layers) and all(map(_understood, layers)) and len(set(map(_shape, layers))) == 1


def layers_of(module: Any) -> list[Any]:
    """The layers of a transformer, or the one that the module is; none of anything else."""
    if type(module) is Transformer2DModel:
        return list(module.transformer_blocks)
    return [module] if type(module) is BasicTransformerBlock else []


def _understood(layer: Any) -> bool:
    return (
        type(layer) is BasicTransformerBlock
        and layer.norm_type in ("layer_norm", "ada_norm_zero", "ada_norm_single")
        and not hasattr(layer, "fuser")
        and attention.matches(layer.attn1)
        and (layer.attn2 is None or attention.matches(layer.attn2))
        and feed_forward.matches(layer.ff)
    )


def _shape(layer: Any) -> tuple[int, int, int]:
    cross = 0 if layer.attn2 is None else layer.attn2.heads
    return layer.attn1.heads, cross, layer.ff.net[2].in_features


def edits(module: Any, settings: SpaceSettings) -> Iterator[tuple[str, Edit | None]]:
    """Options by name: each share of each part with each of the others.

    Fewer layers come as they are, and with all their parts at their first share.
    """
    layers = layers_of(module)
    counts = [n for n in attention.fewer(len(layers), settings.transformer_layers) if n]
    kept: list[Edit] = [{"layers": spread(len(layers), count)} for count in counts]
    reduced = kept
    if settings.preset == "full":
        heads, cross, _ = _shape(layers[0])
        shares = {
            "heads": attention.fewer(heads, settings.attention_heads),
            "cross_heads": attention.fewer(cross, settings.attention_heads) if cross else [],
            "width": feed_forward.widths(layers[0].ff, settings),
            "modulation": modulation.ranks(layers[0], settings),
        }
        first = {part: each[0] for part, each in shares.items() if each}
        reduced = [*parts.combinations(shares), *kept, *({**first, **each} for each in kept)]
    yield from parts.options(KIND, reduced, settings)


def spread(of: int, count: int) -> list[int]:
    """Evenly spread layers, the first and the last among them; of one, the first."""
    return sorted({round(float(index)) for index in torch.linspace(0, of - 1, count)})


class SharedWeights(nn.Module):
    """One set of weights for all options: what comes first in each part is the most important."""

    def __init__(self, module: Any, options: list[Edit | None]) -> None:
        super().__init__()
        self.module = copy.deepcopy(module)
        for layer in layers_of(self.module):
            layer.attn1 = attention.ordered(layer.attn1)
            if layer.attn2 is not None:
                layer.attn2 = attention.ordered(layer.attn2)
            layer.ff = feed_forward.ordered(layer.ff)
        layers = layers_of(self.module)
        self.factors = nn.ModuleList(modulation.Factors(layer, options) for layer in layers)

    def weights(self, edit: Edit | None) -> dict[str, Tensor]:
        """Views into the shared weights, named as in the option's plain module."""
        edit = edit or {}
        if edit.get("kind") == "skip":
            return {}
        layers = layers_of(self.module)
        if layers == [self.module]:
            return self._views(0, edit)
        own: dict[str, Tensor] = {
            name: value
            for name, value in self.module.named_parameters()
            if not name.startswith("transformer_blocks.")
        }
        for place, index in enumerate(edit.get("layers", range(len(layers)))):
            for name, value in self._views(index, edit).items():
                own[f"transformer_blocks.{place}.{name}"] = value
        return own

    def _views(self, index: int, edit: Edit) -> dict[str, Tensor]:
        layer = layers_of(self.module)[index]
        factors = cast(modulation.Factors, self.factors[index])
        found = {
            "attn1": attention.views(layer.attn1, edit.get("heads")),
            "ff": feed_forward.views(layer.ff, edit.get("width")),
            **factors.views(layer, edit.get("modulation")),
        }
        if layer.attn2 is not None:
            found["attn2"] = attention.views(layer.attn2, edit.get("cross_heads"))
        return parts.views(layer, found)
