import pytest
import torch
from rivals import macs_of, stock
from rivals.cached import DeepCache, deep_cache, outer_macs

from diffnas.data import Data, load_data
from diffnas.families import Teacher
from diffnas.families.unet2d import FAMILY
from tests.models import tiny_pipeline


@pytest.fixture(scope="module")
def data() -> Data:
    return load_data("digits", size=(8, 8), channels=1)


@pytest.fixture
def teacher() -> Teacher:
    pipeline = tiny_pipeline(layers_per_block=2, block_out_channels=(32, 64))
    return Teacher("tiny", pipeline, pipeline.unet.requires_grad_(False), FAMILY)


def output(model, teacher: Teacher, time: int = 500):
    noise = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model(sample=noise, timestep=torch.tensor(time)).sample


@pytest.mark.parametrize("kind", ["magnitude", "taylor", "diff_pruning"])
def test_pruning_meets_the_budget_and_what_is_left_runs(kind, teacher, data, monkeypatch):
    pruned = pytest.importorskip("rivals.pruned")

    monkeypatch.setattr(pruned, "TIMESTEPS", 2)
    smaller = getattr(pruned, kind)(teacher, data, 0.5, 0)
    share = macs_of(teacher, smaller) / macs_of(teacher, teacher.denoiser)
    assert 0.3 < share <= 0.5
    assert output(smaller, teacher).shape == (2, 1, 8, 8)


def test_the_narrow_model_is_the_widest_within_the_budget(teacher, data):
    narrow = stock.narrow(teacher, data, 0.5, 0)
    assert 0.4 < macs_of(teacher, narrow) / macs_of(teacher, teacher.denoiser) <= 0.5
    assert narrow.config.block_out_channels == (24, 40)


def test_the_shallow_model_keeps_the_outer_layers_of_each_block(teacher, data):
    shallow = stock.shallow(teacher, data, 0.9, 0)
    theirs = teacher.denoiser.up_blocks[0].resnets[2].conv1.weight
    assert torch.equal(shallow.up_blocks[0].resnets[1].conv1.weight, theirs)
    assert output(shallow, teacher).shape == (2, 1, 8, 8)


def test_the_shallow_model_loses_its_mid_block_where_the_budget_asks_for_it(teacher, data):
    assert stock.shallow(teacher, data, 0.9, 0).mid_block is not None
    assert stock.shallow(teacher, data, 0.1, 0).mid_block is None


@pytest.mark.parametrize("outer", [0, 1, 2])
def test_a_whole_call_of_deep_cache_is_the_denoisers(outer, teacher):
    model = DeepCache(teacher.denoiser, 2, outer)
    torch.testing.assert_close(output(model, teacher), output(teacher.denoiser, teacher))


def test_deep_cache_skips_the_inside_on_the_next_call_and_not_on_a_new_sampling(teacher):
    model = DeepCache(teacher.denoiser, 2, 1)
    calls = []
    teacher.denoiser.mid_block.register_forward_hook(lambda *_: calls.append(1))
    counts = []
    for time in (500, 400, 300, 200, 500, 400):
        output(model, teacher, time)
        counts.append(len(calls))
    assert counts == [1, 1, 2, 2, 3, 3]


def test_deep_cache_counts_its_average_macs(teacher):
    model, average = deep_cache(teacher, 0.5, 20)
    share = outer_macs(teacher, model) / macs_of(teacher, teacher.denoiser)
    whole = -(-20 // model.every) / 20
    assert average == pytest.approx(whole + (1 - whole) * share)
    assert average <= 0.5
