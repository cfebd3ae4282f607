import copy
from dataclasses import replace

import compare
import pytest
import torch
from diffusers import UNet2DModel
from rivals import OutOfReachError, folded, macs_of, pruned, stock
from rivals.cached import DeepCache, deep_caches
from trained import Bench

from diffnas.data import Data, load_data
from diffnas.families import Teacher
from diffnas.families.batches import random_batch
from diffnas.families.unet2d import FAMILY
from diffnas.retrain import losses_of
from diffnas.settings import EvaluateSettings, RetrainSettings, Settings
from diffnas.student.modeling import FoldedUpsample2D
from diffnas.student.stock import as_stock
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


def test_a_rivals_upsamplers_are_folded_for_nothing(teacher):
    model = folded(copy.deepcopy(teacher.denoiser))
    torch.testing.assert_close(output(model, teacher), output(teacher.denoiser, teacher))
    assert macs_of(teacher, model) < macs_of(teacher, teacher.denoiser)


@pytest.mark.parametrize("kind", ["magnitude", "taylor", "diff_pruning"])
def test_pruning_meets_the_budget_closely_with_the_time_embedding_whole(
    kind, teacher, data, monkeypatch
):
    monkeypatch.setattr(pruned, "TIMESTEPS", 2)
    smaller = getattr(pruned, kind)(teacher, data, 0.8, 0).model  # reached sooner than less
    assert 0.7 < macs_of(teacher, smaller) / macs_of(teacher, teacher.denoiser) <= 0.8
    assert smaller.time_embedding.linear_2.out_features == 128
    assert any(isinstance(layer, FoldedUpsample2D) for layer in smaller.modules())
    assert output(smaller, teacher).shape == (2, 1, 8, 8)


def test_blocks_of_a_pruned_model_are_compared_with_the_channels_that_it_kept(teacher, data):
    model, trunk = pruned.magnitude(teacher, data, 0.8, 0)
    part = random_batch(teacher, data, 2, torch.Generator().manual_seed(0))
    how = RetrainSettings(task_weight=1.0, output_weight=0.0)
    losses = losses_of(model, teacher.denoiser, FAMILY, part, settings=how, weight=0.5, trunk=trunk)
    assert 0 < losses["blocks"] < float("inf")
    theirs = {name: name for name in ("bias", "conv.bias", "conv2.bias", "to_out.0.bias")}
    theirs["phases.0.bias"] = "conv.bias"  # of a folded upsampler
    same = {
        path: torch.equal(bias, teacher.denoiser.get_parameter(f"{path}.{theirs[name]}")[rows])
        for path, rows in trunk.kept.items()
        for name, bias in model.get_submodule(path).named_parameters()
        if name in theirs
    }
    assert same == dict.fromkeys(trunk.kept, True)
    assert {len(rows) for rows in trunk.kept.values()} - {32, 64}  # some channels are gone


def test_diff_pruning_leaves_out_the_timesteps_of_little_loss(teacher, data, monkeypatch):
    monkeypatch.setattr(pruned, "TIMESTEPS", 4)
    monkeypatch.setattr(pruned, "IMAGES", 4)
    seen = []

    def losses(given, target):
        seen.append(next(falling))
        return (given * 0).sum() + seen[-1]

    monkeypatch.setattr(pruned.F, "mse_loss", losses)
    for least, count in ((0.0, 4), (pruned.LEAST_SHARE, 3)):
        seen.clear()
        falling = iter([1.0, 0.5, 0.01, 0.005])
        model = copy.deepcopy(teacher.denoiser).requires_grad_(True)
        pruned.with_gradients(teacher, data, 0, least)(model)
        assert len(seen) == count


def test_the_narrow_model_is_the_widest_within_the_budget(teacher, data):
    narrow = stock.narrow(teacher, data, 0.5, 0).model
    assert 0.4 < macs_of(teacher, narrow) / macs_of(teacher, teacher.denoiser) <= 0.5
    assert narrow.config.block_out_channels == (24, 40)
    assert any(isinstance(layer, FoldedUpsample2D) for layer in narrow.modules())


def test_the_shallow_model_is_diffusers_with_the_outer_layers_of_each_block(
    teacher, data, monkeypatch
):
    monkeypatch.setattr(stock, "folded", lambda model: model)  # no config says that
    shallow = stock.shallow(teacher, data, 0.9, 0).model
    stocks = as_stock(shallow, UNet2DModel)
    assert stocks.config.layers_per_block == 1
    theirs = teacher.denoiser.up_blocks[0].resnets[2].conv1.weight
    assert torch.equal(stocks.up_blocks[0].resnets[1].conv1.weight, theirs)
    assert torch.allclose(output(shallow, teacher), output(stocks, teacher), atol=1e-5)


def test_the_shallow_model_loses_its_mid_block_where_the_budget_asks_for_it(teacher, data):
    whole, without = (stock.shallow(teacher, data, macs, 0).model for macs in (0.9, 0.1))
    assert sum(p.numel() for p in whole.mid_block.parameters()) > 0
    assert sum(p.numel() for p in without.mid_block.parameters()) == 0


def test_blocks_of_the_shallow_model_can_be_compared_with_the_teachers(teacher, data):
    shallow = stock.shallow(teacher, data, 0.9, 0).model
    part = random_batch(teacher, data, 2, torch.Generator().manual_seed(0))
    how = RetrainSettings(task_weight=1.0, output_weight=0.0)
    given = (shallow, teacher.denoiser, FAMILY, part)
    found = losses_of(*given, settings=how, weight=0.5)
    assert 0 < found["blocks"] < float("inf")


def test_a_rival_without_a_form_for_the_teacher_or_the_budget_says_so(teacher, data):
    with pytest.raises(OutOfReachError, match="two layers a block"):
        stock.shallow(replace(teacher, denoiser=tiny_pipeline().unet), data, 0.5, 0)
    with pytest.raises(OutOfReachError, match="no narrower model"):
        stock.narrow(teacher, data, 0.001, 0)


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


@pytest.mark.parametrize("outer", [0, 1, 2])
def test_a_cached_call_gives_what_a_whole_one_would_with_the_same_inside(outer, teacher):
    model, noise = DeepCache(teacher.denoiser, 2, outer), torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        whole, inner = model.run(noise, torch.tensor([500]), None, None)
        again, _ = model.run(noise, torch.tensor([500]), None, inner)
    torch.testing.assert_close(again, whole)


def test_deep_caches_keep_their_average_macs_within_the_budget(teacher):
    found = deep_caches(teacher, 0.5, 20)
    assert [model.outer for model, _ in found] == [0, 1, 2]
    for model, average in found:
        least = []
        model.unet.mid_block.register_forward_hook(lambda *_, seen=least: seen.append(1))
        for time in range(1000, 0, -50):
            output(model, teacher, time)
        assert len(least) / 20 < average <= 0.5


def test_deep_cache_and_fewer_steps_gain_from_folded_upsamplers_as_a_student_does(teacher, data):
    on = Bench(teacher, data, Settings(evaluate=EvaluateSettings(sampler_steps=20)))
    ((model, average, how),) = compare.fewer_steps(on, 0.5)
    of_a_step = macs_of(teacher, model) / macs_of(teacher, teacher.denoiser)
    assert of_a_step < 1
    assert average == pytest.approx(how.sampler_steps * of_a_step / 20)
    assert average <= 0.5 < average + of_a_step / 20
    for cached, _ in deep_caches(teacher, 0.5, 20):
        assert any(isinstance(layer, FoldedUpsample2D) for layer in cached.unet.modules())
