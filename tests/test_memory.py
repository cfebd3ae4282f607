"""Memory that each stage of a run is foretold to take."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from diffnas.architecture import subnet_at
from diffnas.budget import parse_budget
from diffnas.defaults import resolve
from diffnas.embeddings import PART
from diffnas.families.loading import load_skeleton
from diffnas.forecast.activations import saved_bytes, weight_bytes
from diffnas.forecast.largest import most_params
from diffnas.forecast.memory import stage_bytes
from diffnas.forecast.ranking import ranking_bytes
from diffnas.measure.memory import activation_bytes
from diffnas.measure.meta import to_meta
from diffnas.settings import SpaceSettings, parse
from diffnas.space import make_space
from tests.engine import tiny_supernet, tiny_teacher
from tests.models import (
    tiny_flux,
    tiny_flux2,
    tiny_latent_pipeline,
    tiny_pipeline,
    tiny_pixart,
    tiny_sd3,
    tiny_stable_diffusion,
    tiny_text_encoder,
    tiny_xl,
)

OF_TEXTS = [tiny_stable_diffusion, tiny_xl, tiny_pixart, tiny_sd3, tiny_flux, tiny_flux2]
ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")


def configs(pipeline, folder: Path, *without: str) -> Path:
    """A pipeline's JSON files, but those of some components."""
    pipeline.save_pretrained(folder)
    for file in [*folder.rglob("*.safetensors"), *(folder / f"{n}/config.json" for n in without)]:
        file.unlink()
    return folder


def foretold(folder: Path, settings=None, device="cuda"):
    teacher = load_skeleton(str(folder))
    space = make_space(teacher.denoiser, teacher.family, SpaceSettings(max_subnets=8))
    size = teacher.family.sample_shape(teacher.denoiser)[1:]
    asked = parse({"evaluate": {"samples": 16}, **(settings or {})})
    resolved = resolve(asked, params=space.teacher.params, size=size, guidable=True)[0]
    return stage_bytes(teacher, space, resolved, torch.device(device))


def weights(pipeline, names):
    return sum(weight_bytes(getattr(pipeline, name)) for name in names if hasattr(pipeline, name))


@pytest.mark.parametrize("make", OF_TEXTS)
def test_captions_take_the_denoiser_and_all_text_encoders_at_work(make, tmp_path):
    pipeline = make()
    found = foretold(configs(pipeline, tmp_path))["captions"]
    component = "unet" if hasattr(pipeline, "unet") else "transformer"
    held = weights(pipeline, [component, *ENCODERS])
    ids = torch.zeros(PART, 77, dtype=torch.long)
    work = activation_bytes(pipeline.text_encoder, kwargs={"input_ids": ids})
    assert held + work <= found < held + 100 * work


def test_states_between_a_text_encoders_layers_are_all_held(tmp_path):
    found, layers = [], (2, 10)
    for count in layers:
        pipeline = tiny_stable_diffusion()
        pipeline.text_encoder = tiny_text_encoder(num_hidden_layers=count)
        captions = foretold(configs(pipeline, tmp_path / str(count)))["captions"]
        found.append(captions - weight_bytes(pipeline.text_encoder))
    state = 4 * PART * 77 * pipeline.text_encoder.config.hidden_size
    assert found[1] - found[0] == (layers[1] - layers[0]) * state


def test_text_encoders_weigh_what_their_files_do(tmp_path):
    pipeline = tiny_stable_diffusion()
    whole = foretold(configs(pipeline, tmp_path / "whole"))["captions"]
    pipeline.text_encoder.half()
    half = foretold(configs(pipeline, tmp_path / "half"))["captions"]
    assert whole - half > weight_bytes(pipeline.text_encoder)  # half of what it was, and more


def test_without_configs_of_its_text_encoders_a_models_captions_are_unknown(tmp_path):
    folder = configs(tiny_stable_diffusion(), tmp_path, "text_encoder")
    assert foretold(folder)["captions"] is None


def test_models_of_pixels_encode_nothing(tmp_path):
    folder = configs(tiny_pipeline(), tmp_path)
    assert list(foretold(folder)) == ["supernet", "scores", "retrain", "evaluate"]


def test_models_of_latents_encode_images(tmp_path):
    pipeline = tiny_latent_pipeline()
    found = foretold(configs(pipeline, tmp_path))
    held = weights(pipeline, ["unet", "vqvae"])
    image = torch.zeros(1, 3, 16, 16)
    assert found["encode"] == held + 64 * activation_bytes(pipeline.vqvae.encoder, (image,))


def test_on_a_cpu_what_rests_is_in_the_same_memory(tmp_path):
    pipeline = tiny_stable_diffusion()
    folder = configs(pipeline, tmp_path)
    whole = {"space": {"trunk": 1}}
    here, there = foretold(folder, whole, "cpu"), foretold(folder, whole)
    resting = weights(pipeline, ["text_encoder", "vae"])
    assert here["retrain"] - there["retrain"] == resting
    assert here["captions"] - there["captions"] == weights(pipeline, ["vae"])


@pytest.mark.parametrize(("device", "change"), [("cuda", -2), ("cpu", 2)])
def test_a_teacher_in_half_precision_takes_half_its_memory_beside_the_cpus(
    tmp_path, device, change
):
    folder = configs(tiny_pipeline(), tmp_path)
    plain = foretold(folder, device=device)
    halved = foretold(folder, {"teacher_precision": "bf16"}, device)
    params = sum(each.numel() for each in tiny_pipeline().unet.parameters())
    for stage in ("supernet", "retrain"):
        assert halved[stage] - plain[stage] == change * params
    for stage in ("scores", "evaluate"):
        assert halved[stage] == plain[stage]


def test_threads_hold_graphs_and_calls_of_their_own(tmp_path, monkeypatch):
    folder, found = configs(tiny_pipeline(), tmp_path), []
    for workers in (1, 2):
        monkeypatch.setattr("diffnas.forecast.memory.workers_for", lambda *_, w=workers: w)
        found.append(foretold(folder))
    for stage in ("supernet", "scores"):
        assert found[1][stage] > found[0][stage]


def test_a_student_takes_five_times_its_weights_where_batches_are_small(tmp_path):
    folder, params = configs(tiny_pipeline(), tmp_path), weight_bytes(tiny_pipeline().unet)
    # Its own, a gradient, two moments, an average; and the teacher's.
    found = foretold(folder, {"space": {"trunk": 1}, "retrain": {"batch_size": 1}})
    assert found["retrain"] == pytest.approx(6 * params, rel=0.05)


def test_muon_keeps_one_moment_where_adamw_keeps_two(tmp_path):
    folder, params = configs(tiny_pipeline(), tmp_path), weight_bytes(tiny_pipeline().unet)
    plain = foretold(folder, {"space": {"trunk": 1}})["retrain"]
    asked = {"space": {"trunk": 1}, "retrain": {"optimizer": "muon"}}
    assert plain - foretold(folder, asked)["retrain"] == params


def test_a_narrower_trunk_holds_the_narrowed_teacher_beside_the_whole_one(tmp_path):
    folder = configs(tiny_pipeline(), tmp_path)
    teacher = load_skeleton(str(folder))
    narrow = make_space(teacher.denoiser, teacher.family, SpaceSettings(trunk=0.5))
    asked = {"score": {"batch_size": 1, "by": "block"}, "evaluate": {"samples": 16}}
    settings = resolve(parse(asked), params=narrow.teacher.params, size=(8, 8))[0]
    found = stage_bytes(teacher, narrow, settings, torch.device("cpu"))
    least = 4 * (narrow.teacher.params + 2 * narrow.base.params)
    assert found["scores"] > least
    # On a GPU neither the narrowed teacher nor any block but the one at hand.
    there = stage_bytes(teacher, narrow, settings, torch.device("cuda"))["scores"]
    others = sum(block.cost.params for block in narrow.blocks)
    others -= max(block.cost.params for block in narrow.blocks)
    assert found["scores"] - there >= 4 * (narrow.base.params + others)


def test_reading_off_a_trunk_holds_the_teachers_graph_and_a_gradient_of_every_stream():
    teacher = tiny_teacher()
    meta = to_meta(teacher.denoiser)
    inputs = teacher.family.example_inputs(meta, 1, torch.device("meta"))
    above = 16 * 64 * (1 + 1 + 2) + 32 * 64  # conv_in and a layer; up its upsampler's and two
    below = 16 * 16 + 32 * 16 * (2 + 3 + 4)  # the downsampler's; layers and attention on three ways
    whole = saved_bytes(meta, (), inputs) + 4 * (above + below)
    assert ranking_bytes(teacher, meta, 1000, 3) == 3 * whole


@pytest.mark.parametrize(("trunk", "more"), [(0.5, True), (1.0, False)])
def test_a_supernet_takes_what_reading_off_its_trunk_does_where_that_is_more(
    tmp_path, monkeypatch, trunk, more
):
    monkeypatch.setattr("diffnas.forecast.memory.ranking_bytes", lambda *_: 2**40)
    teacher = load_skeleton(str(configs(tiny_pipeline(), tmp_path)))
    space = make_space(teacher.denoiser, teacher.family, SpaceSettings(max_subnets=8, trunk=trunk))
    settings = resolve(parse({}), params=space.teacher.params, size=(8, 8))[0]
    found = stage_bytes(teacher, space, settings, torch.device("cpu"))
    assert (found["supernet"] > 2**40) is more


@pytest.mark.parametrize(
    ("limits", "allowed"),
    [
        ({"macs": 0.9}, lambda macs, params: macs <= 0.9),
        ({"params": 0.9}, lambda macs, params: params <= 0.9),
        ({"macs": 0.9, "params": 0.9}, lambda macs, params: macs <= 0.9 and params <= 0.9),
        ({"tolerance": 2.0}, lambda macs, params: True),
    ],
)
def test_a_student_is_as_large_as_its_budget_allows(limits, allowed):
    space = tiny_supernet().space
    whole, few = space.teacher, [space.blocks[2], space.blocks[4]]
    others = [block for block in space.blocks if block not in few]
    kept = replace(space, blocks=tuple(replace(block, slots=()) for block in others) + tuple(few))
    found = []
    for choices in product(*(block.choices() for block in few)):
        cost = kept.base
        for block, choice in zip(few, choices, strict=True):
            cost = cost + block.cost_of(subnet_at(block, choice)) - block.cost
        if allowed(cost.macs / whole.macs, cost.params / whole.params):
            found.append(cost.params)
    most = most_params(kept, parse_budget(**limits))
    # A linear relaxation: options may be taken in part, of one slot for each limit.
    assert max(found) <= most * (1 + 1e-9)
    assert most < 1.1 * max(found)


def test_no_student_of_a_budget_out_of_reach_is_foretold():
    assert most_params(tiny_supernet().space, parse_budget(macs=0.001)) == float("inf")


class Attention(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(8, 8, bias=False)

    def forward(self, x):
        x = self.layer(x)
        return F.scaled_dot_product_attention(x, x, x) * 2.0


def test_for_the_backward_pass_a_layer_keeps_what_it_was_given_and_no_weights():
    given = torch.zeros(5, 8, device="meta")
    with torch.device("meta"):
        layer = torch.nn.Linear(8, 1000)
        assert saved_bytes(layer, (given,), {}) == given.numel() * 4


def test_for_the_backward_pass_attention_keeps_what_it_was_given_and_gave():
    given = torch.zeros(1, 1, 1000, 8, device="meta")
    with torch.device("meta"):
        kept = saved_bytes(Attention(), (given,), {})
    assert kept == 3 * given.numel() * 4  # what the layer took, what it gave, what attention made
