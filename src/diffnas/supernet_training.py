"""Training of the blocks' supernets, each on the teacher's own inputs and outputs."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from diffnas.architecture import BlockSpace, Space, Subnet, subnet_at
from diffnas.blocks import Call
from diffnas.checkpoint import within
from diffnas.data import Data
from diffnas.families.batches import random_batch
from diffnas.losses import BlockLoss, block_loss, block_target
from diffnas.optimizer import Optimizer, autocast, diverged
from diffnas.parallel import thread_map, workers_for
from diffnas.progress import Progress
from diffnas.rng import generator
from diffnas.settings import Precision, SupernetSettings
from diffnas.supernet import BlockSupernet, Supernet
from diffnas.training import Loop, Pace, train


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


@dataclass(frozen=True)
class Lesson:
    """What one step trains on: the teacher's call of every block, and the block's subnets."""

    calls: dict[str, Call]
    subnets: dict[str, list[Subnet]]


class BlockTraining:
    """Training of these blocks, step by step. ``settings`` must be resolved (no gaps)."""

    def __init__(
        self,
        supernet: Supernet,
        data: Data,
        settings: SupernetSettings,
        names: Iterable[str],
        *,
        seed: int,
        precision: Precision,
    ) -> None:
        self.supernet, self.data, self.settings = supernet, data, settings
        self.pace, self.seed, self.precision = Pace.of(settings), seed, precision
        self.device = supernet.teacher.device
        # The dearest block first, so that threads finish together.
        names = sorted(names, key=lambda name: -supernet.blocks[name].space.cost.macs)
        # A student as the teacher may have a block of which nothing is left.
        self.optimizers = {
            name: Optimizer(parameters, settings.weight_decay, precision)
            for name in names
            if (parameters := [p for p in supernet.blocks[name].parameters() if p.requires_grad])
        }
        self.workers = workers_for(self.device, supernet.space.teacher.macs * self.pace.batch_size)
        self.ahead: dict[int, Lesson] = {}

    def lesson(self, index: int) -> Lesson:
        """The teacher's pass of a step."""
        random = generator(self.seed, "supernet", index)
        noisy = random_batch(self.supernet.teacher, self.data, self.pace.batch_size, random)
        # Of all blocks, so that those of one do not hang on which others train beside it.
        subnets = {
            block.name: list(subnets_of_step(block, index, random, self.settings.sandwich))
            for block in self.supernet.space.blocks
        }
        with autocast(self.precision, self.device):
            return Lesson(self.supernet.calls(list(self.optimizers), noisy.inputs), subnets)

    def train(self, name: str, lesson: Lesson, index: int) -> float:
        """One block's part of a step; the loss of its random subnet."""
        optimizer = self.optimizers[name]
        with autocast(self.precision, self.device):
            losses = train_block(
                self.supernet.blocks[name],
                lesson.calls.pop(name),
                lesson.subnets[name],
                self.settings.block_loss,
                optimizer.backward,
            )
        where = f"supernet step {index}, block {name}"
        if not math.isfinite(sum(losses)):
            raise diverged(where, self.precision)
        optimizer.step(self.pace.learning_rate(index), where)
        return losses[0]

    def step(self, index: int) -> dict[str, object]:
        """Train all blocks on one batch, side by side in threads where there are any."""
        lesson = self.ahead.pop(index) if index in self.ahead else self.lesson(index)

        def work(name: str | None) -> float:
            if name is not None:
                return self.train(name, lesson, index)
            self.ahead[index + 1] = self.lesson(index + 1)
            return 0.0

        # The teacher's next pass depends on nothing trained here, so it fills a thread's time.
        next_pass = [None] if self.workers > 1 and index + 1 < self.pace.steps else []
        done = thread_map(work, [*next_pass, *self.optimizers], self.workers)
        losses = dict(zip(self.optimizers, done[len(next_pass) :], strict=True))
        return {"loss": sum(losses.values()) / len(losses), "blocks": losses}

    def state(self) -> dict[str, Tensor]:
        """Everything that changes from step to step, as named tensors."""
        moments = {
            f"optimizer/{name}/{key}": value
            for name, optimizer in self.optimizers.items()
            for key, value in optimizer.state().items()
        }
        return moments | {
            f"model/{name}/{key}": value
            for name in self.optimizers
            for key, value in self.supernet.blocks[name].state_dict().items()
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what :meth:`state` gave."""
        for name, optimizer in self.optimizers.items():
            self.supernet.blocks[name].load_state_dict(within(tensors, f"model/{name}/"))
            optimizer.restore(within(tensors, f"optimizer/{name}/"))


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
    of all steps. Blocks are independent of each other: in ``settings.groups`` one after the other,
    each with a teacher pass a step and a checkpoint of its own, they come to the same weights, and
    one group at a time holds optimizer states and calls, and is on the device.

    Raises:
        RunError: a block's loss is no longer finite.
    """
    parts, trunk = groups(supernet.space, settings.groups), supernet.space.trunk
    seconds = 0.0
    for number, names in enumerate(parts):
        several = {} if len(parts) == 1 else {"group": number + 1, "groups": len(parts)}
        with supernet.awake(names):
            loop = Loop(
                "supernet",
                BlockTraining(supernet, data, settings, names, seed=seed, precision=precision),
                None if checkpoint is None else checkpoint_of(checkpoint, number),
                fingerprint,
                progress or Progress(),
                several | ({} if trunk is None else {"trunk": list(trunk)}),
            )
            seconds += train(loop)
    return seconds


def groups(space: Space, count: int) -> list[list[str]]:
    """Names of the blocks with weights, in at most so many groups, of nearly as many parameters."""
    blocks = [block for block in space.blocks if block.cost.params]
    found: list[list[BlockSpace]] = [[] for _ in range(min(count, len(blocks)))]
    for block in sorted(blocks, key=lambda block: -block.cost.params):
        min(found, key=lambda group: sum(each.cost.params for each in group)).append(block)
    return [[block.name for block in group] for group in found]


def checkpoint_of(path: Path, group: int) -> Path:
    """Where a group's training is kept: the first one's at the path itself."""
    return path.with_stem(f"{path.stem}-{group}") if group else path
