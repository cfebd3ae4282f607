"""A block is a module and its captured call."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")


@dataclass(frozen=True)
class Call:
    """What one module was given and what it gave: trees of tensors, tuples, dicts, None."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any

    @property
    def streams(self) -> list[Tensor]:
        """What a residual block's outputs may carry on from: its first input, and all of tokens.

        Tokens: tensors (B, N, D), of which transformers for texts and images have two.
        """
        given = list(tensors((self.args, self.kwargs)))
        return [*given[:1], *(tensor for tensor in given[1:] if tensor.ndim == 3)]

    @property
    def made(self) -> Tensor:
        """The first tensor of the output: of most modules the only one, be it in a tuple."""
        return next(tensors(self.output))


def tensors(tree: Any) -> Iterator[Tensor]:
    """All tensors of a tree, in order."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, Mapping):
        for value in tree.values():
            yield from tensors(value)
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from tensors(value)


def map_tensors(function: Callable[[Tensor], Tensor], tree: T) -> T:
    """The same tree with ``function`` applied to each tensor; one shared stays shared."""
    # A function inside that called itself would be a cycle, and hold the tensors until collected.
    mapped: T = _mapped(function, tree, {})
    return mapped


def _mapped(function: Callable[[Tensor], Tensor], node: Any, done: dict[int, Tensor]) -> Any:
    if isinstance(node, Tensor):
        if id(node) not in done:
            done[id(node)] = function(node)
        return done[id(node)]
    if isinstance(node, Mapping):
        rebuild: Any = type(node)  # mypy knows no constructor of a Mapping in general
        return rebuild({key: _mapped(function, value, done) for key, value in node.items()})
    if isinstance(node, list | tuple):
        return type(node)(_mapped(function, value, done) for value in node)
    return node


def freeze(tree: T) -> T:
    """Detached, laid out channels first, and in float32 unless autocast is on in its precision.

    torch's CPU GroupNorm backward crashes on a channels-last input that needs no gradient, and
    diffusers' attention hands such tensors on. Only a frozen teacher may be in another half
    precision than autocast; what is trained on its calls is not, and autocast refuses to mix them.
    """
    return map_tensors(_frozen, tree)


def _frozen(tensor: Tensor) -> Tensor:
    tensor = tensor.detach().contiguous()
    if tensor.dtype == torch.bfloat16:
        kind = tensor.device.type
        mixed = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == tensor.dtype
        tensor = tensor if mixed else tensor.float()
    # At 1 x 1 pixels both layouts count as contiguous; a copy has the strides of channels first.
    if tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last):
        tensor = tensor.clone(memory_format=torch.contiguous_format)
    return tensor


@contextmanager
def recorded(model: nn.Module, paths: Sequence[str]) -> Iterator[dict[str, Call]]:
    """Calls of the submodules at ``paths``, filled in, in order of execution, while active."""
    calls: dict[str, Call] = {}

    def record(path: str) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            calls[path] = Call(args, kwargs, output)

        return hook

    handles = [
        model.get_submodule(path).register_forward_hook(record(path), with_kwargs=True)
        for path in paths
    ]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def capture(
    denoiser: nn.Module, paths: Sequence[str], inputs: Mapping[str, Any]
) -> tuple[Any, dict[str, Call]]:
    """One forward pass without gradients: the denoiser's output, and every block's frozen call."""
    with torch.no_grad(), recorded(denoiser, paths) as calls:
        output = denoiser(**inputs)
    frozen = freeze({path: (call.args, call.kwargs, call.output) for path, call in calls.items()})
    return output, {path: Call(*parts) for path, parts in frozen.items()}
