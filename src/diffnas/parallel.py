"""Independent pieces of work in threads: torch lets go of Python's lock inside its operators."""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn

Item = TypeVar("Item")
Result = TypeVar("Result")
Module = TypeVar("Module", bound=nn.Module)


SMALL = 5e10
"""MACs of a batch up to which whole pieces of work in threads beat threads inside operators."""


def workers_for(device: torch.device | str, batch_macs: float = 0.0) -> int:
    """How many pieces of work to run side by side: torch's thread count on the CPU, else one.

    Large operators use all threads by themselves; small ones lose more than they win by it, ten
    times over when another process holds one of the cores.
    """
    small = torch.device(device).type == "cpu" and batch_macs <= SMALL
    return torch.get_num_threads() if small else 1


@contextmanager
def single_threaded(wanted: bool) -> Iterator[None]:
    """While active (and wanted), operators of this thread run on one thread."""
    threads = torch.get_num_threads()
    if wanted:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def twin(module: Module) -> Module:
    """A copy that shares all parameters and buffers: hooks and attributes are its own."""
    shared = {id(tensor): tensor for tensor in [*module.parameters(), *module.buffers()]}
    return copy.deepcopy(module, dict(shared))


def thread_map(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int,
    done: Callable[[int], None] | None = None,
) -> list[Result]:
    """Results of ``function`` for all items, in their order.

    With several workers each call runs its operators on one thread. Modes such as
    ``torch.no_grad`` belong to a thread: enter them inside ``function``. ``done`` is called in the
    calling thread with the number of items finished so far.
    """
    results: list[Result] = []

    def collect(found: Iterable[Result]) -> list[Result]:
        for result in found:
            results.append(result)
            if done is not None:
                done(len(results))
        return results

    # With one worker no second thread is made: interrupts and tracebacks stay plain.
    if workers <= 1:
        return collect(map(function, items))

    def run(item: Item) -> Result:
        torch.set_num_threads(1)
        return function(item)

    with single_threaded(True):
        pool = ThreadPoolExecutor(workers)
        try:
            return collect(pool.map(run, items))
        finally:
            pool.shutdown(cancel_futures=True)
