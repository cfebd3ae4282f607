"""An upsampler: its convolution before the enlargement, whole, of lower rank, or 1x1."""

from collections.abc import Iterator
from typing import Any

import torch
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn

from diffnas.architecture import TEACHER, Edit
from diffnas.settings import SpaceSettings
from diffnas.slots import conv
from diffnas.student.modeling import foldable

KIND = "upsampler"

FOLDED = "folded"
"""The option that gives what the teacher's gives, in fewer MACs and with more weights."""


def matches(module: nn.Module) -> bool:
    """Whether this slot understands the module."""
    return type(module) is Upsample2D and foldable(module)


def edits(upsampler: Any, settings: SpaceSettings) -> Iterator[tuple[str, Edit | None]]:
    """Options by name."""
    for name, edit in conv.edits(upsampler.conv, settings):
        if edit is not None:
            yield name, {**edit, "kind": KIND}
            continue
        yield TEACHER, None
        if settings.preset == "full":
            yield FOLDED, {"kind": KIND}


class SharedWeights(nn.Module):
    """Those of its convolution, whose taps, or whose product's, are added up where it is folded."""

    def __init__(self, upsampler: Any, options: list[Edit | None]) -> None:
        super().__init__()
        self.conv = conv.SharedWeights(upsampler.conv, options)

    def weights(self, edit: Edit | None) -> dict[str, Tensor]:
        """The option's weights, named as in its plain module; folded ones are sums of shared."""
        if edit is None or "kernel" in edit:
            return {f"conv.{name}": value for name, value in self.conv.weights(edit).items()}
        if "rank" not in edit:
            whole = self.conv.weights(None)
            return _phases(whole.pop("weight"), whole)
        product = self.conv.weights(edit)
        second = {
            f"second.{name.removeprefix('1.')}": value
            for name, value in product.items()
            if name.startswith("1.")
        }
        return _phases(product["0.weight"], {}) | second


def _phases(weight: Tensor, bias: dict[str, Tensor]) -> dict[str, Tensor]:
    """(O, I, 3, 3) as four of (O, I, 2, 2), by the place in a square that each of them gives."""
    found = [part for rows in _halves(weight, -2) for part in _halves(rows, -1)]
    return {
        f"phases.{place}.{name}": value
        for place, part in enumerate(found)
        for name, value in {"weight": part, **bias}.items()
    }


def _halves(weight: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """What three taps are for a pixel's first and its second copy, which see two pixels each."""
    first, middle, last = weight.unbind(axis)
    return (
        torch.stack([first, middle + last], axis),
        torch.stack([first + middle, last], axis),
    )
