"""Independent pieces of work in threads: torch lets go of Python's lock inside its operators."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def workers_for(device: torch.device | str) -> int:
    """How many threads serve a device: torch's own number on the CPU, one elsewhere."""
    return torch.get_num_threads() if torch.device(device).type == "cpu" else 1


def thread_map(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int,
    done: Callable[[int], None] | None = None,
) -> list[Result]:
    """Results of ``function`` for all items, in their order.

    Each call runs its operators on one thread, so that results do not depend on ``workers``. Modes
    such as ``torch.no_grad`` belong to a thread: enter them inside ``function``. ``done`` is called
    in the calling thread with the number of items finished so far.
    """
    intra_op_threads = torch.get_num_threads()

    def run(item: Item) -> Result:
        torch.set_num_threads(1)
        return function(item)

    results: list[Result] = []
    try:
        # With one worker no second thread is made: interrupts and tracebacks stay plain.
        pool = ThreadPoolExecutor(workers) if workers > 1 else None
        try:
            for result in pool.map(run, items) if pool else map(run, items):
                results.append(result)
                if done is not None:
                    done(len(results))
        finally:
            if pool is not None:
                pool.shutdown(cancel_futures=True)
    finally:
        torch.set_num_threads(intra_op_threads)
    return results
