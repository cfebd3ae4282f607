"""Per block, a weight-sharing supernet, trained on the teacher's own inputs and outputs."""

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffnas.architecture import Architecture, BlockSpace, Space, Subnet, subnet_at
from diffnas.blocks import Call, capture
from diffnas.checkpoint import within
from diffnas.data import Data, batch
from diffnas.families import Teacher
from diffnas.losses import BlockLoss, block_loss, block_target
from diffnas.measure.cost import to_meta
from diffnas.parallel import single_threaded, thread_map, workers_for
from diffnas.progress import Progress
from diffnas.rng import generator
from diffnas.settings import Precision, SupernetSettings
from diffnas.slots import SharedSlot
from diffnas.student.modeling import apply_edits
from diffnas.training import Loop, Optimizer, autocast, diverged, learning_rate, run


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
            parent = self.block.get_submodule(slot.path.rpartition(".")[0])
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

    def weights(self, subnet: Subnet) -> dict[str, Tensor]:
        """The weights of the plain block of that subnet, by name."""
        slots = self.slots
        inside = tuple(f"{path}." for path in slots)
        own = {
            name: value
            for name, value in self.block.state_dict(keep_vars=True).items()
            if not name.startswith(inside)
        }
        for path, slot in slots.items():
            own |= {f"{path}.{name}": value for name, value in slot.weights(subnet[path]).items()}
        return own


class Supernet:
    """The supernets of all blocks of a teacher. Blocks are independent of each other."""

    def __init__(self, teacher: Teacher, space: Space) -> None:
        self.teacher = teacher
        self.space = space
        self.blocks = {
            block.name: BlockSupernet(teacher.denoiser.get_submodule(block.name), block)
            for block in space.blocks
        }

    def build(self, architecture: Architecture) -> nn.Module:
        """A plain denoiser of that architecture with the supernet's weights, on its device.

        Stem and head are the teacher's.
        """
        denoiser = copy.deepcopy(self.teacher.denoiser)
        apply_edits(denoiser, architecture.edits(self.space))
        for name, block in self.blocks.items():
            weights = block.weights(architecture.blocks[name])
            plain = denoiser.get_submodule(name)
            plain.load_state_dict({key: value.detach() for key, value in weights.items()})
        return denoiser.eval()

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


def random_subnet(block: BlockSpace, generator: torch.Generator) -> Subnet:
    """One of the block's subnets, uniformly."""
    if block.only is not None:
        row = int(torch.randint(len(block.only), (), generator=generator))
        return subnet_at(block, block.only[row])
    return subnet_at(
        block,
        [int(torch.randint(len(slot.options), (), generator=generator)) for slot in block.slots],
    )


def subnets_of_step(
    block: BlockSpace, step: int, generator: torch.Generator, sandwich: bool
) -> Iterator[Subnet]:
    """The subnets one step trains: a random one and, in turn, the teacher's own or the smallest."""
    yield random_subnet(block, generator)
    if sandwich:
        yield block.teacher if step % 2 == 0 else block.smallest


def train_block(
    block: BlockSupernet,
    call: Call,
    subnets: list[Subnet],
    kind: BlockLoss,
    backward: Callable[[Tensor], object],
) -> list[float]:
    """Forward and backward of each subnet on the teacher's input; gradients add up.

    Each backward runs at once and frees its graph. Returns the block losses.
    """
    target = block_target(call, kind)
    losses = []
    for subnet in subnets:
        block.activate(subnet)
        loss = block_loss(block(*call.args, **call.kwargs), target)
        if loss.requires_grad:  # a block all of whose layers are left out has no weights
            backward(loss)
        losses.append(float(loss.detach()))
    return losses


def fit(
    supernet: Supernet,
    data: Data,
    settings: SupernetSettings,
    *,
    seed: int = 0,
    precision: Precision = "fp32",
    checkpoint: Path | None = None,
    fingerprint: str = "",
    progress: Progress | None = None,
) -> float:
    """Train all blocks, each on the teacher's inputs and outputs; one teacher pass serves all.

    ``settings`` must be resolved, without gaps (:mod:`diffnas.defaults`).
    Blocks train side by side in threads where the device is a CPU. With a ``checkpoint`` path the
    training goes on where an earlier one, with the same fingerprint, stopped. Returns the seconds
    of all steps.

    Raises:
        RunError: a block's loss is no longer finite.
    """
    assert settings.steps is not None
    assert settings.batch_size is not None
    assert settings.learning_rate is not None
    steps, size, peak = settings.steps, settings.batch_size, settings.learning_rate
    family, pipeline = supernet.teacher.family, supernet.teacher.pipeline
    device = next(supernet.teacher.denoiser.parameters()).device
    # The dearest block first, so that threads finish together.
    names = sorted(supernet.blocks, key=lambda name: -supernet.blocks[name].space.cost.macs)
    # A student as the teacher may have a block of which nothing is left.
    names = [name for name in names if any(True for _ in supernet.blocks[name].parameters())]
    optimizers = {
        name: Optimizer(list(supernet.blocks[name].parameters()), settings.weight_decay, precision)
        for name in names
    }
    workers = workers_for(device, supernet.space.teacher.macs * size)

    ahead: dict[int, tuple[dict[str, Call], dict[str, list[Subnet]]]] = {}

    def teach(index: int) -> tuple[dict[str, Call], dict[str, list[Subnet]]]:
        """The teacher's calls of a step, and the subnets to train on them."""
        random = generator(seed, "supernet", index)
        images, labels = batch(data, size, random)
        labels = None if labels is None else labels.to(device)
        noisy = family.training_batch(pipeline, images.to(device), labels, random, None)
        subnets = {
            block.name: list(subnets_of_step(block, index, random, settings.sandwich))
            for block in supernet.space.blocks
        }
        with autocast(precision, device):
            return capture(supernet.teacher.denoiser, names, noisy.inputs)[1], subnets

    def step(index: int) -> dict[str, object]:
        calls, subnets = ahead.pop(index) if index in ahead else teach(index)
        rate = learning_rate(peak, index, steps)

        def train(name: str) -> float:
            with autocast(precision, device):
                losses = train_block(
                    supernet.blocks[name],
                    calls.pop(name),
                    subnets[name],
                    settings.block_loss,
                    optimizers[name].backward,
                )
            where = f"supernet step {index}, block {name}"
            if not math.isfinite(sum(losses)):
                raise diverged(where)
            optimizers[name].step(rate, where)
            return losses[0]

        def work(name: str | None) -> float:
            if name is not None:
                return train(name)
            ahead[index + 1] = teach(index + 1)
            return 0.0

        # The teacher's next pass depends on nothing trained here, so it fills a thread's time.
        next_pass = [None] if workers > 1 and index + 1 < steps else []
        done = thread_map(work, [*next_pass, *names], workers)
        losses = dict(zip(names, done[len(next_pass) :], strict=True))
        return {"loss": sum(losses.values()) / len(losses), "blocks": losses}

    def state() -> dict[str, Tensor]:
        moments = {
            f"adamw/{name}/{key}": value
            for name, optimizer in optimizers.items()
            for key, value in optimizer.state().items()
        }
        return {f"model/{key}": value for key, value in supernet.state_dict().items()} | moments

    def restore(tensors: Mapping[str, Tensor]) -> None:
        supernet.load_state_dict(within(tensors, "model/"))
        for name, optimizer in optimizers.items():
            optimizer.restore(within(tensors, f"adamw/{name}/"))

    progress = progress or Progress()
    with single_threaded(workers > 1):
        return run(Loop("supernet", steps, step, state, restore, checkpoint, fingerprint, progress))
