"""The teacher with a subnet in the place of one block: its error at the output, in threads."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from diffnas.architecture import BlockSpace, Choices, Floats, Subnet, subnet_at
from diffnas.blocks import Call, capture
from diffnas.families import Batch
from diffnas.families.resting import awake
from diffnas.parallel import single_threaded, thread_map, twin
from diffnas.progress import Progress
from diffnas.supernet import Supernet


class PatchedTeacher:
    """The teacher with one block's outputs replaced; shares its weights and the supernet's."""

    def __init__(self, supernet: Supernet, workers: int = 1) -> None:
        """``workers``: how many subnets are tried side by side, each on a twin of its own."""
        self.supernet = supernet
        self.twins = [_Twin(supernet) for _ in range(workers)]

    def errors(
        self,
        block: BlockSpace,
        choices: Choices,
        batches: list[Batch],
        progress: Progress | None = None,
    ) -> Floats:
        """E_k(u) of each of these subnets of a block, the mean over batches."""
        total, count = np.zeros(len(choices)), len(batches)
        shared = [twin.blocks[block.name] for twin in self.twins]
        with awake(shared, self.supernet.teacher.device, changed=False):
            for number, batch in enumerate(batches):

                def show(rows: int, before: int = number * len(choices)) -> None:
                    if progress is not None:
                        progress.update((before + rows) // count)

                total += self._on(batch, block, choices, show)
        return total / count

    def _on(
        self, batch: Batch, block: BlockSpace, choices: Choices, done: Callable[[int], None]
    ) -> Floats:
        """Those on one batch. Whoever is free takes the next: a core may have other work, too."""
        workers = len(self.twins)
        with single_threaded(workers > 1):
            seen = _Seen.of(self.supernet, batch, block)
        idle: SimpleQueue[_Twin] = SimpleQueue()
        for each in self.twins:
            idle.put(each)

        def error(choice: npt.NDArray[Any]) -> float:
            own = idle.get()
            try:
                return own.error(seen, subnet_at(block, choice))
            finally:
                idle.put(own)

        return np.array(thread_map(error, list(choices), workers, done))


@dataclass(frozen=True)
class _Seen:
    """What the teacher gives on a batch: its blocks' calls, that of one as the trunk keeps it."""

    block: str
    batch: Batch
    calls: dict[str, Call]
    given: Call
    output: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, supernet: Supernet, batch: Batch, block: BlockSpace) -> "_Seen":
        """For trying subnets of that block."""
        teacher = supernet.teacher
        output, calls = capture(teacher.denoiser, list(supernet.blocks), batch.inputs)
        given = supernet.cut({block.name: calls[block.name]})[block.name]
        wanted = teacher.family.prediction(output, batch.size)
        return cls(block.name, batch, calls, given, wanted)


class _Twin:
    """A teacher and a supernet for one thread, with the weights of all."""

    def __init__(self, supernet: Supernet) -> None:
        self.supernet = supernet
        self.denoiser = twin(supernet.teacher.denoiser)
        self.blocks = {name: twin(block) for name, block in supernet.blocks.items()}

    @torch.no_grad()
    def error(self, seen: _Seen, subnet: Subnet) -> float:
        """The squared error at the output with that subnet in the place of its block."""
        shared, given, batch = self.blocks[seen.block], seen.given, seen.batch
        shared.activate(subnet)
        made = Call(given.args, given.kwargs, shared(*given.args, **given.kwargs))
        whole = self.supernet.whole(seen.block, seen.calls[seen.block], made)
        with self._known(seen, whole):
            output = self.denoiser(**batch.inputs)
        found = self.supernet.teacher.family.prediction(output, batch.size)
        channels = batch.target.shape[1]  # further ones are a learned variance
        return float(F.mse_loss(found[:, :channels], seen.output[:, :channels]))

    @contextmanager
    def _known(self, seen: _Seen, output: Any) -> Iterator[None]:
        """While active, all blocks before that one give what they gave, and it ``output``."""
        before = list(self.blocks)[: list(self.blocks).index(seen.block)]
        known = {name: seen.calls[name].output for name in before} | {seen.block: output}
        modules = {name: self.denoiser.get_submodule(name) for name in known}
        for name, module in modules.items():
            # An attribute of the module itself goes before its class's method.
            vars(module)["forward"] = _Constant(known[name])
        try:
            yield
        finally:
            for module in modules.values():
                del vars(module)["forward"]


@dataclass(frozen=True)
class _Constant:
    """Stands for a block whose output is known."""

    output: Any

    def __call__(self, *_: Any, **__: Any) -> Any:
        return self.output
