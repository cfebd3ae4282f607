"""Memory of one inference call, traced on the meta device: nothing is computed or allocated."""

import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from diffnas.measure.meta import FusedKernels, tensors_to_meta, to_meta


def memory_bytes(denoiser: nn.Module, inputs: Mapping[str, Any]) -> int:
    """Bytes of parameters and buffers, and of activations at their peak, in one no-grad call.

    Activations are all tensors alive at once, inputs included. Attention counts as fused kernels
    do it, without the matrix of scores. Workspaces of libraries and allocator overhead are not
    included: a device shows somewhat more.
    """
    meta = to_meta(denoiser)
    weights = stored_bytes([*meta.parameters(), *meta.buffers()])
    return weights + activation_bytes(meta, kwargs=inputs)


def activation_bytes(
    module: nn.Module, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
) -> int:
    """Bytes of activations at their peak in ``module(*args, **kwargs)``, inputs included."""
    module = to_meta(module)
    args, kwargs = tensors_to_meta((args, dict(kwargs or {})))
    given = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    with torch.no_grad(), _LiveStorages() as live, FusedKernels():
        live.add(given)
        module(*args, **kwargs)
    return live.peak


def stored_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of what these tensors are kept in; what several share counts once."""
    storages = {each.untyped_storage()._cdata: each.untyped_storage() for each in tensors}
    return sum(storage.nbytes() for storage in storages.values())


class _LiveStorages(TorchDispatchMode):
    """Sums the bytes of the storages that operators made and that are still referenced."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.peak = 0
        self.seen: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        # A view or an in-place result shares its input's storage and is not new.
        arguments = pytree.tree_leaves((args, kwargs))
        old = {_key(leaf) for leaf in arguments if isinstance(leaf, Tensor)}
        leaves = [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor)]
        self.add([leaf for leaf in leaves if _key(leaf) not in old])
        return result

    def add(self, tensors: list[Tensor]) -> None:
        """Count these tensors' storages from now until they are freed."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key in self.seen:
                continue
            self.seen.add(key)
            self.bytes += storage.nbytes()
            weakref.finalize(storage, self._free, key, storage.nbytes())
        self.peak = max(self.peak, self.bytes)

    def _free(self, key: int, size: int) -> None:
        self.seen.discard(key)
        self.bytes -= size


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
