"""Parameters and multiply-accumulates, counted on the meta device: shapes only, no arithmetic.

Published counts of diffusion models leave out the products of activations with activations inside
attention (queries with keys, weights with values); both counts are given.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from diffnas.architecture import Cost
from diffnas.measure.meta import FusedKernels, operands, tensors_to_meta, to_meta

PLAIN_ATTENTION = frozenset({torch.bmm, torch.baddbmm})
"""What attention processors without a fused kernel call to multiply activations."""


def call_cost(
    module: nn.Module, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
) -> Cost:
    """Parameters (shared ones once) and MACs of ``module(*args, **kwargs)``.

    Module and tensors may be on any device and stay as they are. MACs are those of the batch size
    of the given tensors; a :class:`Cost` is meant at batch 1.
    """
    module = to_meta(module)
    args, kwargs = tensors_to_meta((args, dict(kwargs or {})))
    counter = FlopCounterMode(display=False)
    beside = _Beside(counter)
    with torch.no_grad(), counter, beside:
        module(*args, **kwargs)
    macs = counter.get_total_flops() // 2 + beside.linear + beside.fused
    return Cost(
        params=sum(parameter.numel() for parameter in module.parameters()),
        macs=macs,
        macs_without_attention=macs - beside.fused - beside.plain // 2,
    )


class _Beside(FusedKernels):
    """Counts beside the counter: what it cannot see, and what is slow to see on meta.

    ``linear`` and ``fused`` (attention) are MACs that the counter misses; ``plain`` are FLOPs of
    attention without a fused kernel, which are among those that it sees.
    """

    def __init__(self, counter: FlopCounterMode) -> None:
        super().__init__()
        self.counter = counter
        self.linear = self.fused = self.plain = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is F.linear:
            given, weight = operands(("input", "weight"), args, kwargs)
            self.linear += given.numel() * weight.shape[0]
            return given.new_empty(*given.shape[:-1], weight.shape[0])
        before = self.counter.get_total_flops() if func in PLAIN_ATTENTION else 0
        result = super().__torch_function__(func, types, args, kwargs)
        if func in PLAIN_ATTENTION:
            self.plain += self.counter.get_total_flops() - before
        if func is F.scaled_dot_product_attention:
            query, key = operands(("query", "key"), args, kwargs)
            # Every query is multiplied with every key, and its weights with all values.
            self.fused += key.shape[-2] * (query.numel() + result.numel())
        return result
