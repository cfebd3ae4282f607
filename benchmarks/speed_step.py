"""A supernet step over the least it could take. Run by `speed.py`."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from timing import quartiles, seconds
from torch import nn

from diffnas.architecture import BlockSpace, Subnet, joined
from diffnas.blocks import Call, capture
from diffnas.data import Data
from diffnas.families import Batch
from diffnas.families.batches import random_batch
from diffnas.losses import block_loss, block_target
from diffnas.optimizer import Optimizer
from diffnas.parallel import thread_map
from diffnas.rng import generator
from diffnas.student.modeling import apply_edits
from diffnas.supernet import Supernet
from diffnas.supernet_training import subnets_of_step, train_block


@dataclass(frozen=True)
class Step:
    """What one training step works on."""

    supernet: Supernet
    noisy: Batch
    subnets: dict[str, list[Subnet]]
    names: list[str]  # of the blocks, the dearest first
    workers: int


def draw(supernet: Supernet, data: Data, index: int, batch_size: int, workers: int) -> Step:
    """A step's images, noise and subnets, as :func:`diffnas.supernet_training.fit` draws them."""
    random, teacher = generator(0, "supernet", index), supernet.teacher
    noisy = random_batch(teacher, data, batch_size, random)
    subnets = {
        block.name: list(subnets_of_step(block, index, random, True))
        for block in supernet.space.blocks
    }
    names = sorted(subnets, key=lambda name: -supernet.blocks[name].space.cost.macs)
    return Step(supernet, noisy, subnets, names, workers)


def shared(step: Step) -> Callable[[], None]:
    """Forward and backward as :func:`diffnas.supernet_training.fit` does them."""

    def train(name: str, calls: dict[str, Call]) -> None:
        block, subnets = step.supernet.blocks[name], step.subnets[name]
        train_block(block, calls.pop(name), subnets, "residual", lambda loss: loss.backward())

    def run() -> None:
        _, calls = capture(step.supernet.teacher.denoiser, step.names, step.noisy.inputs)
        thread_map(lambda name: train(name, calls), step.names, step.workers)

    return run


def floor(step: Step) -> tuple[Callable[[], None], list[nn.Module]]:
    """The same by plain modules, which are given too; all they need is made beforehand."""
    teacher = step.supernet.teacher.denoiser
    _, calls = capture(teacher, step.names, step.noisy.inputs)
    targets = {name: block_target(calls[name], "residual") for name in step.names}
    plain = {
        name: [plain_block(step.supernet, name, subnet) for subnet in step.subnets[name]]
        for name in step.names
    }

    def train(name: str) -> None:
        call = calls[name]
        for module in plain[name]:
            loss = block_loss(module(*call.args, **call.kwargs), targets[name])
            if loss.requires_grad:
                loss.backward()

    def run() -> None:
        with torch.no_grad():
            teacher(**step.noisy.inputs)
        thread_map(train, step.names, step.workers)

    return run, [module for both in plain.values() for module in both]


def plain_block(supernet: Supernet, name: str, subnet: Subnet) -> nn.Module:
    """A block of its own with those options, its weights fresh where its shapes are new."""
    space: BlockSpace = supernet.blocks[name].space
    around = nn.ModuleDict({"block": supernet.teacher.denoiser.get_submodule(name)})
    around = copy.deepcopy(around)  # a slot may be the block itself
    chosen = {slot.path: slot.option(subnet[slot.path]).edit for slot in space.slots}
    edits = {joined("block", path): edit for path, edit in chosen.items() if edit is not None}
    apply_edits(around, edits)
    return around["block"].eval().requires_grad_(True)


def step_row(
    supernet: Supernet, data: Data, *, batch_size: int, steps: int, repeats: int, workers: int
) -> dict[str, Any]:
    """Supernet steps over their floor, and the optimisers' time."""
    optimizers = [Optimizer(list(block.parameters()), 0.0) for block in supernet.blocks.values()]

    def optimize() -> None:
        for optimizer in optimizers:
            optimizer.step(0.0, "speed")

    times: dict[str, list[float]] = {"shared": [], "floor": [], "optimizer": []}
    for index in range(steps):
        step = draw(supernet, data, index, batch_size, workers)
        run_floor, modules = floor(step)
        works = {"shared": shared(step), "floor": run_floor}
        for turn in range(repeats + 1):
            took = {}
            for name in sorted(works, reverse=bool(turn % 2)):
                took[name] = seconds(works[name])
            took["optimizer"] = seconds(optimize)
            for module in modules:
                module.zero_grad(set_to_none=True)
            if turn:  # the first meets shapes not seen before
                for name, value in took.items():
                    times[name].append(value)
    ratios = [a / b for a, b in zip(times["shared"], times["floor"], strict=True)]
    return {
        "over_floor": quartiles(ratios),
        **{f"{name}_ms": quartiles([1e3 * v for v in values]) for name, values in times.items()},
        "threads": workers,
    }
