"""Parameters and multiply-accumulates, counted on the meta device: shapes only, no arithmetic.

Published counts of diffusion models leave out the products of activations with activations inside
attention (queries with keys, weights with values); both counts are given.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

from diffnas.architecture import Cost

ATTENTION_PRODUCTS = frozenset({F.scaled_dot_product_attention, torch.bmm, torch.baddbmm})
"""What attention processors call to multiply activations with activations."""


def call_cost(
    module: nn.Module, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
) -> Cost:
    """Parameters (shared ones once) and MACs of ``module(*args, **kwargs)``.

    Module and tensors may be on any device and stay as they are. MACs are those of the batch size
    of the given tensors; a :class:`Cost` is meant at batch 1.
    """
    # On CPU the counter misses fused attention; on meta, attention decomposes and is counted.
    module = to_meta(module)
    args, kwargs = tensors_to_meta((args, dict(kwargs or {})))
    flops = FlopCounterMode(display=False)
    attention = _AttentionFlops(flops)
    with torch.no_grad(), flops, attention:
        module(*args, **kwargs)
    macs = flops.get_total_flops() // 2
    return Cost(
        params=sum(parameter.numel() for parameter in module.parameters()),
        macs=macs,
        macs_without_attention=macs - attention.total // 2,
    )


def to_meta(module: nn.Module) -> nn.Module:
    """Copy without data on the meta device; the module itself when it is there already."""
    tensors = [*module.parameters(), *module.buffers()]
    if all(tensor.is_meta for tensor in tensors):
        return module
    # The memo keeps deepcopy from copying the weights: a teacher may fill half the memory.
    memo: dict[int, Any] = {id(tensor): _meta_twin(tensor) for tensor in tensors}
    return copy.deepcopy(module, memo)


def tensors_to_meta(tree: Any) -> Any:
    """Replace every tensor of the tree by one on the meta device."""
    return pytree.tree_map_only(Tensor, lambda tensor: tensor.detach().to("meta"), tree)


def _meta_twin(tensor: Tensor) -> Tensor:
    twin = tensor.detach().to("meta")
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(twin, requires_grad=tensor.requires_grad)
    return twin


class _AttentionFlops(TorchFunctionMode):
    """Adds up what a flop counter counts while attention products run."""

    def __init__(self, flops: FlopCounterMode) -> None:
        super().__init__()
        self.flops = flops
        self.total = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func not in ATTENTION_PRODUCTS:
            return func(*args, **(kwargs or {}))
        before = self.flops.get_total_flops()
        result = func(*args, **(kwargs or {}))
        self.total += self.flops.get_total_flops() - before
        return result
