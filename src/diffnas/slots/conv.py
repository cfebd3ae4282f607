"""A lone convolution (a resampler's, mostly): of lower rank, or 1x1."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from diffnas.architecture import TEACHER, Edit
from diffnas.settings import SpaceSettings
from diffnas.slots import parts

KIND = "conv"


def matches(module: nn.Module) -> bool:
    """Whether this slot understands the module."""
    return (
        type(module) is nn.Conv2d
        and module.groups == 1
        and module.dilation == (1, 1)
        and not isinstance(module.padding, str)
        and min(module.kernel_size) > 1
        and module.padding_mode == "zeros"
    )


def edits(conv: nn.Conv2d, settings: SpaceSettings) -> Iterator[tuple[str, Edit | None]]:
    """Options by name. A strided convolution stays k x k: a 1x1 one would drop pixels unseen."""
    yield TEACHER, None
    if settings.preset != "full":
        return
    full = min(conv.out_channels, conv.weight[0].numel())
    for rank in parts.multiples(conv.out_channels, settings.conv_ranks, settings.multiple_of):
        if rank <= full:
            yield f"rank={rank}", {"kind": KIND, "rank": rank}
    same_size = tuple(2 * int(pad) + 1 for pad in conv.padding) == conv.kernel_size
    if conv.stride == (1, 1) and same_size:
        yield "kernel=1", {"kind": KIND, "kernel": 1}


class SharedWeights(nn.Module):
    """The teacher's convolution, one product of two whose first k components serve rank k, a 1x1.

    The product starts as the singular value decomposition of the teacher's weight, whose first k
    components are its best approximation of rank k (Eckart-Young).
    """

    def __init__(self, conv: nn.Conv2d, options: list[Edit | None]) -> None:
        super().__init__()
        self.weight = nn.Parameter(conv.weight.detach().clone())
        self.bias = None if conv.bias is None else nn.Parameter(conv.bias.detach().clone())
        ranks = [edit["rank"] for edit in options if edit and "rank" in edit]
        if ranks:
            first, second = _low_rank(conv.weight.detach(), max(ranks))
            self.first, self.second = nn.Parameter(first), nn.Parameter(second)
        if any(edit and edit.get("kernel") for edit in options):
            self.point = nn.Parameter(conv.weight.detach().sum((2, 3), keepdim=True))

    def weights(self, edit: Edit | None) -> dict[str, Tensor]:
        """Views into the shared weights, named as in the option's plain module."""
        bias = {} if self.bias is None else {"bias": self.bias}
        if edit is None:
            return {"weight": self.weight, **bias}
        if "rank" not in edit:
            return {"weight": self.point, **bias}
        rank = edit["rank"]
        return {
            "0.weight": self.first[:rank],
            "1.weight": self.second[:, :rank],
            **{f"1.{name}": value for name, value in bias.items()},
        }


def _low_rank(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """(rank, I, k, k) and (O, rank, 1, 1), whose product is nearest to (O, I, k, k)."""
    left, values, right = torch.linalg.svd(parts.exact(weight.flatten(1)), full_matrices=False)
    root = values[:rank].sqrt()
    first = (root[:, None] * right[:rank]).unflatten(1, weight.shape[1:])
    second = (left[:, :rank] * root)[:, :, None, None]
    return first.contiguous().to(weight), second.contiguous().to(weight)
