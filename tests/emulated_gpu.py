"""A GPU emulated on the CPU: what lies on it is marked, and an operator that mixes both raises.

``torch.device("cuda:0")`` is understood wherever a tensor is made or moved, and is what a marked
tensor says of itself. It computes what the CPU does; it has no clock and no kernels of its own.
"""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

GPU = torch.device("cuda:0")

_held: dict[int, int] = {}
"""Bytes of the storages that lie on the GPU, by their address."""


@contextmanager
def emulated_gpu() -> Iterator[None]:
    """While active, there is a GPU."""
    with _Operators(), _Functions():
        yield


def on_gpu(tensor: Tensor) -> bool:
    """Whether it lies on the emulated GPU."""
    return not tensor.is_meta and tensor.untyped_storage()._cdata in _held


def held() -> int:
    """Bytes on the emulated GPU."""
    return sum(_held.values())


class _Operators(TorchDispatchMode):
    """Refuses operators on tensors of both places; results lie where their inputs do."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = _tensors((args, kwargs or {}))
        marked = [each for each in given if on_gpu(each)]
        name = func.overloadpacket.__name__
        if marked and name not in ("copy_", "_to_copy"):
            # Single numbers may be on the CPU, and so may indices.
            checked = given[:1] if name in ("index", "index_put", "index_put_") else given
            strangers = [t for t in checked if t.ndim and not t.is_meta and not on_gpu(t)]
            assert not strangers, f"{func} mixes the GPU and the CPU"
        made = func(*args, **(kwargs or {}))
        # A backward pass begins with a gradient of nothing.
        backward = not given and torch._C._current_graph_task_id() != -1
        if (marked and name != "copy_") or backward:
            for each in _tensors(made):
                _mark(each)
        return made


class _Functions(TorchFunctionMode):
    """Where tensors say that they are, are made, and are moved to."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func == Tensor.device.__get__:
            return GPU if on_gpu(args[0]) else func(*args)
        if func == Tensor.is_cuda.__get__:
            return on_gpu(args[0])
        if func is Tensor.cpu:
            return _moved(args[0], gpu=False)
        if func is Tensor.to:
            return _to(*args, **kwargs)
        assert func is not Tensor.numpy or not on_gpu(args[0]), "numpy cannot read a GPU"
        there = _is_gpu(kwargs.get("device"))
        made = func(*args, **(kwargs | {"device": "cpu"} if there else kwargs))
        for each in _tensors(made) if there else ():
            _mark(each)
        return made


def _to(tensor: Tensor, *wanted: Any, **named: Any) -> Tensor:
    """``tensor.to(...)``, in all its forms."""
    device, kinds = named.pop("device", None), [named.pop("dtype", None)]
    for each in wanted:
        if isinstance(each, Tensor):
            device, kinds = GPU if on_gpu(each) else each.device, [each.dtype]
        elif isinstance(each, torch.dtype):
            kinds = [each]
        elif isinstance(each, str | torch.device):
            device = each
    if tensor.is_meta or (device is not None and torch.device(device).type == "meta"):
        return Tensor.to(tensor, device or tensor.device, *[k for k in kinds if k], **named)
    if device is not None:
        tensor = _moved(tensor, gpu=_is_gpu(device))
    named.pop("non_blocking", None)
    return Tensor.to(tensor, dtype=kinds[0] or tensor.dtype, **named)


def _moved(tensor: Tensor, *, gpu: bool) -> Tensor:
    """Itself where it is there, else a copy that its gradient comes back from."""
    if on_gpu(tensor) == gpu:
        return tensor
    copy: Tensor = _Copied.apply(tensor) if tensor.requires_grad else _copied(tensor)
    if gpu:
        _mark(copy)
    return copy


class _Copied(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, tensor: Tensor) -> Tensor:
        return _copied(tensor)

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        return gradient


def _copied(tensor: Tensor) -> Tensor:
    """On the CPU, wherever it was."""
    with _disable_current_modes():
        return tensor.detach().clone()


def _mark(tensor: Tensor) -> None:
    if tensor.is_meta:
        return
    storage = tensor.untyped_storage()
    address = storage._cdata
    if address not in _held:
        _held[address] = storage.nbytes()
        weakref.finalize(storage, _held.pop, address, None)


def _is_gpu(device: Any) -> bool:
    return device is not None and torch.device(device).type == "cuda"


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
