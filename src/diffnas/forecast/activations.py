"""Bytes of weights, and of what a forward pass keeps for its backward pass; on the meta device."""

from typing import Any

from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from diffnas.measure.meta import FusedKernels


def weight_bytes(module: nn.Module) -> int:
    """Of its parameters."""
    return sum(each.numel() * each.element_size() for each in module.parameters())


def saved_bytes(module: nn.Module, args: Any, kwargs: Any) -> int:
    """Bytes of activations that a forward pass keeps for its backward pass (weights left out).

    Attention is taken to be a fused kernel's, which keeps no matrix of scores.
    """
    # By their storages: what a linear layer keeps is its weights turned, a view.
    weights = {each.untyped_storage()._cdata for each in module.parameters()}
    seen: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            seen[storage._cdata] = storage.nbytes()
        kept.append(tensor)  # alive, so that no other storage takes its place
        return tensor

    kept: list[Tensor] = []
    trained = [parameter.requires_grad for parameter in module.parameters()]
    module.requires_grad_(True)
    try:
        with saved_tensors_hooks(pack, lambda tensor: tensor), FusedKernels():
            module(*args, **kwargs)
    finally:
        for parameter, wanted in zip(module.parameters(), trained, strict=True):
            parameter.requires_grad_(wanted)
    return sum(seen.values())
