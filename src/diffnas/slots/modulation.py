"""A part of transformer layers: what timestep and condition tell their norms, of lower rank.

A projection of its own in every layer (adaLN-Zero: Peebles and Xie, arXiv 2212.09748), for one
vector an image: hardly any MACs, but of a layer of width d 6 d^2 of 18 d^2 parameters.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from diffnas.architecture import Edit
from diffnas.settings import SpaceSettings
from diffnas.slots import parts
from diffnas.student.modeling import modulated


def ranks(layer: nn.Module, settings: SpaceSettings) -> list[int]:
    """Those shares of the projections' inputs that save weights, falling; none without any."""
    shapes = [_projection(layer, name).weight.shape for name in modulated(layer)]
    if not shapes or settings.preset != "full":
        return []
    inputs = min(columns for _, columns in shapes)
    found = parts.multiples(inputs, settings.modulation_ranks, settings.multiple_of)
    whole = sum(rows * columns for rows, columns in shapes)
    return [rank for rank in found if rank * sum(map(sum, shapes)) < whole]


class Factors(nn.Module):
    """Of each of a layer's projections a product of two, whose first k components serve rank k."""

    def __init__(self, layer: nn.Module, options: Iterable[Edit | None]) -> None:
        super().__init__()
        asked = [edit["modulation"] for edit in options if edit and "modulation" in edit]
        names = modulated(layer) if asked else []
        self.inward, self.outward = nn.ParameterDict(), nn.ParameterDict()
        for name in names:
            inward, outward = factored(_projection(layer, name).weight.detach(), max(asked))
            self.inward[name], self.outward[name] = nn.Parameter(inward), nn.Parameter(outward)

    def views(self, layer: nn.Module, rank: int | None) -> dict[str, dict[str, Tensor]]:
        """The weights of the layer's modulated norms, by the norm's name; none for full rank."""
        if rank is None:
            return {}
        found: dict[str, dict[str, Tensor]] = {}
        for name in self.inward:
            own: dict[str, Tensor] = dict(layer.get_submodule(name).named_parameters())
            del own["linear.weight"]
            if (bias := own.pop("linear.bias", None)) is not None:
                own["linear.1.bias"] = bias
            own["linear.0.weight"] = self.inward[name][:rank]
            own["linear.1.weight"] = self.outward[name][:, :rank]
            found[name] = own
        return found


def factored(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """(rank, I) and (O, rank), whose product is nearest to a weight (O, I).

    It is W V V^T, with V the first eigenvectors of W^T W (Eckart-Young), which for the tall
    projections of large models are had much sooner than all singular vectors.
    """
    whole = parts.exact(weight)
    values, vectors = torch.linalg.eigh(whole.T @ whole)
    values, vectors = values.flip(0)[:rank], vectors.flip(1)[:, :rank]
    root = values.clamp(min=1e-12).pow(0.25)[:, None]  # both factors of one size
    inward, outward = root * vectors.T, whole @ vectors / root.T
    return inward.contiguous().to(weight), outward.contiguous().to(weight)


def _projection(layer: nn.Module, name: str) -> Any:
    return layer.get_submodule(name).linear
