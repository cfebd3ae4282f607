"""What the optimizer's steps are foretold to take."""

import pytest
import torch
from torch import nn

from diffnas.forecast import updates
from diffnas.forecast.updates import narrowed, update_macs, update_seconds
from diffnas.settings import RetrainSettings

MUON = RetrainSettings(optimizer="muon")
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def steady(monkeypatch):
    """A device on which every call takes two seconds."""

    def time_ms(call, device):
        call()
        return 2000.0

    monkeypatch.setattr("diffnas.measure.latency._time_ms", time_ms)


@pytest.fixture
def model():
    return nn.Sequential(nn.Conv2d(4, 8, 3), nn.Flatten(), nn.Linear(16, 4))


def test_a_short_step_is_timed_as_its_matrices_are_small(model):
    assert update_seconds(model, MUON, 0.5, rate=1e12, device=CPU) == 2.0


def test_a_step_that_takes_much_memory_is_not_timed(model, monkeypatch):
    needed = 3 * 4 * (8 * 36 + 4 * 16)  # weights, gradients and moments in single precision
    found = []
    for most in (needed, needed - 1):
        monkeypatch.setattr(updates, "PROBE_BYTES", most)
        found.append(update_seconds(model, MUON, 1.0, rate=1e12, device=CPU))
    assert found == [2.0, update_macs(model, MUON) / 1e12]


def test_a_long_step_takes_its_macs_at_the_rate_of_passes(model):
    rate = update_macs(model, MUON, 0.25) / (2 * updates.SHORT)
    found = update_seconds(model, MUON, 0.25, rate=rate, device=CPU)
    assert found == pytest.approx(2 * updates.SHORT)


@pytest.mark.parametrize(("workers", "threads"), [(1, []), (4, [1])])
def test_beside_parts_of_a_batch_one_thread_times_the_step(model, monkeypatch, workers, threads):
    told = []
    monkeypatch.setattr(torch, "set_num_threads", told.append)
    update_seconds(model, MUON, 0.5, rate=1e12, device=CPU, workers=workers)
    assert told[:-1] == threads  # the last gives back what there were


def test_beside_parts_of_a_batch_a_long_step_has_one_threads_rate(model):
    rate = update_macs(model, MUON) / updates.SHORT
    found = [update_seconds(model, MUON, 1.0, rate=rate, device=CPU, workers=n) for n in (1, 4)]
    assert found[1] == pytest.approx(4 * found[0])


def test_a_model_on_paper_is_timed_too(model):
    assert update_seconds(model.to("meta"), MUON, 1.0, rate=1e12, device=CPU) == 2.0


def test_adamws_steps_take_next_to_nothing(model):
    assert update_seconds(model, RetrainSettings(), 0.5, rate=1e12, device=CPU) == 0.0


def test_a_quarter_of_the_macs_is_half_the_width(model):
    assert narrowed(model, 1.0) == [(8, 36), (4, 16)]
    assert narrowed(model, 0.25) == [(4, 18), (2, 8)]
