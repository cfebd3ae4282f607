"""The search space, a file per module type.

A slot file says which modules it understands (``matches``), which options they have (``edits``;
the teacher's own first) and how all options share weights (``SharedWeights``). The plain module of
an option is :func:`diffnas.student.modeling.edit_module`'s. Nothing else has to be known: the
shared-weight forward of an option *is* that plain module, called with views into shared weights.
"""

import copy
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from torch import nn
from torch.func import functional_call

from diffnas.architecture import SlotSpace, joined
from diffnas.slots import (
    attention,
    conv,
    feed_forward,
    joint,
    parallel,
    resnet,
    single,
    transformer,
    upsampler,
)
from diffnas.student.modeling import edit_module

KINDS: tuple[ModuleType, ...] = (
    resnet,
    transformer,
    joint,
    single,
    parallel,
    attention,
    feed_forward,
    upsampler,
    conv,
)


def find(block: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module, ModuleType]]:
    """(path, module, slot file) of every module that a slot understands, outermost first.

    The block itself, at the path "", may be one.
    """
    kind = next((kind for kind in KINDS if kind.matches(block)), None)
    if kind is not None:
        yield path, block, kind
        return
    for name, child in block.named_children():
        yield from find(child, joined(path, name))


class SharedSlot(nn.Module):
    """Stands in a supernet's block where the teacher's module stood; runs its active option."""

    def __init__(self, module: nn.Module, meta: nn.Module, space: SlotSpace) -> None:
        """``meta`` is the teacher's module on the meta device: the mould of the plain modules."""
        super().__init__()
        kind = next(kind for kind in KINDS if space.kind == kind.KIND)
        self.shared: Any = kind.SharedWeights(module, [option.edit for option in space.options])
        self.edits = {option.name: option.edit for option in space.options}
        # A plain dict: the moulds' meta parameters must not look like the supernet's own.
        self.moulds = {
            name: meta if edit is None else edit_module(meta, edit)
            for name, edit in self.edits.items()
        }
        self.active = space.options[0].name

    def weights(self, option: str) -> dict[str, Any]:
        """The option's weights, as views, named as in its plain module."""
        return self.shared.weights(self.edits[option])

    def plain(self, option: str) -> nn.Module:
        """The option's plain module, frozen, with its weights laid out for speed (a copy)."""
        plain = copy.deepcopy(self.moulds[option])
        weights = {
            name: value.detach().contiguous() for name, value in self.weights(option).items()
        }
        plain.load_state_dict(weights, assign=True)
        return plain.eval().requires_grad_(False)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the active option's plain module gives."""
        mould = self.moulds[self.active]
        return functional_call(mould, self.weights(self.active), args, kwargs)
