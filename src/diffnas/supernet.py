"""Per block, a supernet: one module whose shared weights serve all of the block's subnets."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor, nn

from diffnas.architecture import Architecture, BlockSpace, Space, Subnet, joined
from diffnas.blocks import Call, capture
from diffnas.checkpoint import within
from diffnas.families import Teacher
from diffnas.families.resting import awake
from diffnas.measure.meta import to_meta
from diffnas.slots import SharedSlot
from diffnas.student.modeling import apply_edits
from diffnas.trunk import Trunk


class BlockSupernet(nn.Module):
    """One block of the teacher with shared slots; runs one subnet at a time.

    Eval mode (dropout off), so that teacher and supernet see the same.
    """

    def __init__(self, block: nn.Module, space: BlockSpace) -> None:
        super().__init__()
        self.space = space
        self.block = copy.deepcopy(block).eval()
        meta = to_meta(self.block)
        for slot in space.slots:
            shared = SharedSlot(block.get_submodule(slot.path), meta.get_submodule(slot.path), slot)
            # From here on: a slot may be the block itself.
            parent = self.get_submodule(joined("block", slot.path).rpartition(".")[0])
            old = self.block.get_submodule(slot.path)
            for name in [name for name, child in parent._modules.items() if child is old]:
                setattr(parent, name, shared)
        self.requires_grad_(True)

    @property
    def slots(self) -> dict[str, SharedSlot]:
        """The shared slots by path, in order of execution."""
        found = {slot.path: self.block.get_submodule(slot.path) for slot in self.space.slots}
        return {path: slot for path, slot in found.items() if isinstance(slot, SharedSlot)}

    def activate(self, subnet: Subnet) -> None:
        """Run that subnet from now on."""
        for path, slot in self.slots.items():
            slot.active = subnet[path]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the block gives, through the active options."""
        return self.block(*args, **kwargs)

    def freeze(self, path: str) -> None:
        """Train nothing of the plain block's module at ``path``, if it has one there."""
        for name, value in self.weights(self.space.teacher).items():
            if name.startswith(f"{path}."):
                value.requires_grad_(False)

    def weights(self, subnet: Subnet) -> dict[str, Tensor]:
        """The weights of the plain block of that subnet, by name."""
        slots = self.slots
        inside = tuple(f"{path}." if path else "" for path in slots)
        own = {
            name: value
            for name, value in self.block.state_dict(keep_vars=True).items()
            if not name.startswith(inside)
        }
        for path, slot in slots.items():
            own |= {joined(path, name): value for name, value in slot.weights(subnet[path]).items()}
        return own


class Supernet:
    """The supernets of all blocks of a teacher. Blocks are independent of each other.

    They rest on the CPU but while they are :meth:`awake`, as does what they begin with in a
    narrower trunk: of a large model a GPU holds the teacher and the blocks at hand, no more.
    """

    def __init__(self, teacher: Teacher, space: Space, trunk: Trunk | None = None) -> None:
        """``trunk``: the one of the space; None where the teacher's streams stay as they are."""
        if (space.trunk is None) != (trunk is None):
            raise ValueError(f"the space's trunk is {space.trunk}, and the one given {trunk}")
        self.teacher = teacher
        self.space = space
        self.trunk = trunk
        self.base = teacher.denoiser if trunk is None else trunk.denoiser
        self.blocks = {
            block.name: BlockSupernet(self.base.get_submodule(block.name), block).to("cpu")
            for block in space.blocks
        }
        for path in teacher.family.outside:
            for name, block in self.blocks.items():
                block.freeze(path.removeprefix(f"{name}."))

    def awake(self, names: Iterable[str], *, changed: bool = True) -> AbstractContextManager[None]:
        """While active, the supernets of these blocks are on the teacher's device.

        ``changed``: whether they are trained there.
        """
        blocks = [self.blocks[name] for name in names]
        return awake(blocks, self.teacher.device, changed=changed)

    def calls(self, names: Sequence[str], inputs: Mapping[str, Any]) -> dict[str, Call]:
        """What the teacher's blocks are given and give, as far as the trunk keeps it."""
        return self.cut(capture(self.teacher.denoiser, names, inputs)[1])

    def cut(self, calls: Mapping[str, Call]) -> dict[str, Call]:
        """The teacher's calls, as far as the trunk keeps them."""
        return dict(calls) if self.trunk is None else self.trunk.cut(calls)

    def whole(self, name: str, call: Call, made: Call) -> Any:
        """What a subnet gave, among what the teacher gave and the trunk does not keep."""
        return made.output if self.trunk is None else self.trunk.filled(name, call, made)

    def build(self, architecture: Architecture) -> nn.Module:
        """A plain denoiser of that architecture with the supernet's weights, where the teacher is.

        Stem and head are the teacher's, as far as the trunk keeps them.
        """
        denoiser = copy.deepcopy(self.base)
        apply_edits(denoiser, architecture.slot_edits(self.space))
        for name in architecture.blocks:
            weights = self.blocks[name].weights(architecture.blocks[name])
            plain = denoiser.get_submodule(name)
            plain.load_state_dict({key: value.detach() for key, value in weights.items()})
        return denoiser.to(self.teacher.device).eval()

    def state_dict(self) -> dict[str, Tensor]:
        """All shared weights, by block and name."""
        return {
            f"{name}/{key}": value
            for name, block in self.blocks.items()
            for key, value in block.state_dict().items()
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take weights made by :meth:`state_dict`."""
        for name, block in self.blocks.items():
            block.load_state_dict(within(state, f"{name}/"))
