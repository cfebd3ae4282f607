import threading
import time

import pytest
import torch
from torch import nn

from diffnas.parallel import SMALL, single_threaded, thread_map, twin, workers_for


@pytest.fixture(autouse=True)
def _two_threads() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_the_order_of_the_items(workers: int) -> None:
    def slow_first(item: int) -> int:
        time.sleep(0.02 if item == 0 else 0)
        return item * item

    assert thread_map(slow_first, range(6), workers) == [0, 1, 4, 9, 16, 25]


@pytest.mark.parametrize("workers", [1, 3])
def test_progress_counts_up_in_the_calling_thread(workers: int) -> None:
    seen: list[tuple[int, int]] = []
    thread_map(str, range(4), workers, lambda n: seen.append((n, threading.get_ident())))
    assert seen == [(n, threading.get_ident()) for n in (1, 2, 3, 4)]


def test_several_workers_run_at_once() -> None:
    together = threading.Barrier(2, timeout=10)
    thread_map(lambda _: together.wait(), range(2), 2)


def test_one_worker_stays_in_the_calling_thread() -> None:
    assert thread_map(lambda _: threading.get_ident(), range(2), 1) == [threading.get_ident()] * 2


def test_operators_of_several_workers_run_on_one_thread_each() -> None:
    assert thread_map(lambda _: torch.get_num_threads(), range(4), 2) == [1] * 4
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failure_reaches_the_caller_and_restores_the_threads(workers: int) -> None:
    def fail(item: int) -> None:
        raise ValueError(f"item {item}")

    with pytest.raises(ValueError, match="item 0"):
        thread_map(fail, range(8), workers)
    assert torch.get_num_threads() == 2


def test_nothing_to_do_gives_nothing() -> None:
    assert thread_map(str, [], 2) == []


def test_only_small_work_on_the_cpu_is_spread() -> None:
    assert workers_for("cpu") == workers_for("cpu", SMALL) == 2
    assert workers_for("cpu", 2 * SMALL) == 1
    assert workers_for("cuda") == 1


@pytest.mark.parametrize(("wanted", "inside"), [(True, 1), (False, 2)])
def test_threads_are_given_back(wanted: bool, inside: int) -> None:
    with single_threaded(wanted):
        assert torch.get_num_threads() == inside
    assert torch.get_num_threads() == 2


def test_a_twin_shares_weights_and_buffers_but_no_hooks() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    other = twin(module)
    assert all(a is b for a, b in zip(module.parameters(), other.parameters(), strict=True))
    assert all(a is b for a, b in zip(module.buffers(), other.buffers(), strict=True))
    other.register_forward_hook(lambda *_: None)
    assert not module._forward_hooks
