"""Models on the meta device: shapes only, nothing is computed or allocated."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

NORMS = frozenset({F.group_norm, F.layer_norm})


def to_meta(module: nn.Module) -> nn.Module:
    """Copy without data on the meta device; the module itself when it is there already."""
    tensors = [*module.parameters(), *module.buffers()]
    if all(tensor.is_meta for tensor in tensors):
        return module
    return copied_to(module, torch.device("meta"))


def copied_to(module: nn.Module, device: torch.device) -> nn.Module:
    """A copy on another device, of which nothing is made on the module's own."""
    tensors = [*module.parameters(), *module.buffers()]
    # The memo keeps deepcopy from copying the weights: a teacher may fill half the memory.
    memo: dict[int, Any] = {id(tensor): _twin(tensor, device) for tensor in tensors}
    return copy.deepcopy(module, memo)


def tensors_to_meta(tree: Any) -> Any:
    """Replace every tensor of the tree by one on the meta device."""
    return pytree.tree_map_only(Tensor, lambda tensor: tensor.detach().to("meta"), tree)


def _twin(tensor: Tensor, device: torch.device) -> Tensor:
    twin = tensor.detach().to(device, copy=True)
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(twin, requires_grad=tensor.requires_grad)
    return twin


class FusedKernels(TorchFunctionMode):
    """Attention and norms give and keep what fused kernels do, and no more.

    On meta, attention would make the matrix of scores, which no fused kernel holds, and a norm
    takes longer than all else, since torch works its parts out one by one in Python.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func in NORMS:
            return _Norm.apply(*operands(("input", None, "weight"), args, kwargs))
        if func is F.scaled_dot_product_attention:
            return _Attention.apply(*operands(("query", "key", "value"), args, kwargs))
        return func(*args, **(kwargs or {}))


def operands(
    names: tuple[str | None, ...], args: tuple[Any, ...], kwargs: Mapping[str, Any] | None
) -> list[Any]:
    """A call's arguments of these names, the function's first in their order; None: left out."""
    named = dict(zip(names, args, strict=False)) | dict(kwargs or {})
    return [named.get(name) for name in names if name is not None]


class _Attention(torch.autograd.Function):
    """What a fused kernel gives and, where there is a backward pass, keeps for it."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        made = query.new_empty(*query.shape[:-1], value.shape[-1])
        ctx.save_for_backward(query, key, value, made)
        return made


class _Norm(torch.autograd.Function):
    """Keeps its input, be it for its weight's gradient; its few means and deviations are left out.

    ``weight`` is here so that there is a backward pass where only the weight is trained.
    """

    @staticmethod
    def forward(ctx: Any, given: Tensor, weight: Tensor | None) -> Tensor:
        row_major = given.contiguous()  # they copy what is not
        ctx.save_for_backward(row_major)
        return torch.empty_like(row_major)
