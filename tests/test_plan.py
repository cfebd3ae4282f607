"""A plan foretells costs exactly, and needs no weights."""

import json
import shutil

import pytest
import torch
from torch.nn import Conv2d, Linear

from diffnas.budget import parse_budget
from diffnas.errors import UserError
from diffnas.families import Teacher
from diffnas.families.loading import load_skeleton
from diffnas.figures import figure
from diffnas.forecast.hours import asked_share, macs_per_second
from diffnas.forecast.memory import stage_bytes
from diffnas.measure.cost import call_cost
from diffnas.parallel import workers_for
from diffnas.plan import make_plan
from diffnas.settings import RetrainSettings, SpaceSettings, parse
from diffnas.space import make_space
from tests.models import (
    tiny_dit,
    tiny_inpainting,
    tiny_latent_pipeline,
    tiny_pipeline,
    tiny_stable_diffusion,
)

AS_WIDE = {"space": {"trunk": 1}}
ASKED = 0.3
"""Share of the retraining's steps in which the teacher is asked."""

FOUR_LEVELS = {
    "down_block_types": ("DownEncoderBlock2D",) * 5,
    "up_block_types": ("UpDecoderBlock2D",) * 5,
}
NO_RESNETS = {
    "space": {"trunk": 1, "resnet_widths": [], "resnet_kernels": [], "resnet_skip": False}
}


@pytest.fixture(scope="module")
def configs(tmp_path_factory):
    """A pipeline folder with nothing but its JSON files."""
    folder = tmp_path_factory.mktemp("plan") / "tiny"
    tiny_pipeline().save_pretrained(folder)
    for file in folder.rglob("*.safetensors"):
        file.unlink()
    return folder


def plan(folder, settings=None, **budget):
    return make_plan(str(folder), parse_budget(**budget), parse(settings or {}))


def test_configs_are_enough(configs):
    made = plan(configs)
    assert made["teacher"]["params"] == sum(p.numel() for p in tiny_pipeline().unet.parameters())
    assert made["smallest"]["macs"] < made["teacher"]["macs"]
    json.dumps(made)


def test_largest_is_the_teacher_unless_options_cost_more(configs):
    assert plan(configs, AS_WIDE)["largest"] == plan(configs)["teacher"]
    wide = plan(configs, {"space": {"trunk": 1, "resnet_kernels": [5]}})
    assert wide["largest"]["macs"] > wide["teacher"]["macs"]


def test_a_trunk_narrower_than_the_teachers_is_told_with_its_reason(configs):
    made = plan(configs, macs=0.5)
    assert (
        made["reasons"]["space.trunk"] == "0.75, 3 of 4 norm groups, for 0.5 of the teacher's cost"
    )
    assert made["settings"]["space"]["trunk"] == 0.75
    assert made["largest"]["macs"] < made["teacher"]["macs"]
    assert made["smallest"]["macs"] < plan(configs, AS_WIDE)["smallest"]["macs"]
    assert made["memory_bytes"]["retrain"] < plan(configs, AS_WIDE)["memory_bytes"]["retrain"]


def test_blocks_show_their_slots_and_options(configs):
    blocks = {block["name"]: block for block in plan(configs)["blocks"]}
    slots = {slot["path"]: slot["options"] for slot in blocks["down_blocks.1"]["slots"]}
    assert slots["resnets.0"][0] == "teacher"
    assert slots["resnets.0"][-1] == "skip"
    assert sum(block["share_macs"] for block in blocks.values()) <= 1


def test_a_budget_is_told_to_be_within_reach_or_not(configs):
    assert plan(configs, macs=0.5)["budget"]["macs"]["reachable"]
    assert not plan(configs, macs=0.001)["budget"]["macs"]["reachable"]
    assert plan(configs, memory=0.9)["budget"]["memory"]["smallest"] > 0


def test_a_budget_above_the_teachers_own_cost_is_noted(configs):
    def noted(macs):
        return [line for line in plan(configs, macs=macs)["notes"] if line.startswith("--macs")]

    assert noted(0.5) == noted(1.0) == []
    (line,) = noted("3G")
    own = figure("macs", plan(configs)["teacher"]["macs"])
    assert line == f"--macs 3G: above the teacher's own {own}, so it asks for nothing smaller"


@pytest.mark.parametrize(
    ("by", "rule", "told"),
    [
        ("block", "global-exact", True),
        ("block", "global-evolution", True),
        ("block", "local", False),
        ("output", "global-exact", False),
    ],
)
def test_block_losses_that_are_added_up_are_noted(configs, by, rule, told):
    notes = plan(configs, {"score": {"by": by}, "select": {"rule": rule}})["notes"]
    assert any(line.startswith(f"score.by = block: {rule} adds") for line in notes) == told


def test_a_tolerance_adds_nothing_up(configs):
    notes = plan(configs, {"score": {"by": "block"}}, tolerance=2.0)["notes"]
    assert not any("score.by" in line for line in notes)


def test_a_space_of_one_architecture_is_noted(configs):
    alone = {"space": {"trunk": 0.5, "exclude": "*"}}
    words = "the space holds one architecture"
    assert any(line.startswith(words) for line in plan(configs, alone)["notes"])
    assert not any(line.startswith(words) for line in plan(configs)["notes"])


def test_what_compress_needs_beside_configs_is_noted(configs, tmp_path):
    lacking = f"compress would refuse model {configs}: its denoiser has no weights; "
    (line,) = plan(configs)["notes"]
    assert line.startswith(lacking)
    tiny_pipeline().save_pretrained(tmp_path / "whole")
    assert plan(tmp_path / "whole")["notes"] == []
    shutil.rmtree(tmp_path / "whole" / "scheduler")
    (line,) = plan(tmp_path / "whole")["notes"]
    assert line.startswith(f"compress would refuse model {tmp_path}/whole: no scheduler; ")


def test_a_denoiser_alone_is_planned_as_in_its_pipeline(configs):
    whole, alone = plan(configs), plan(configs / "unet")
    for key in ("teacher", "smallest", "largest", "blocks", "settings", "memory_bytes"):
        assert alone[key] == whole[key], key


def test_a_denoiser_alone_is_noted_with_what_a_call_is_told(configs, tmp_path):
    uncounted = "no scheduler, autoencoder or text encoder is counted"
    first, refusal = plan(configs / "unet")["notes"]
    assert first == f"a denoiser alone, told nothing: {uncounted}"
    assert refusal.startswith(f"compress would refuse model {configs}/unet: no model_index.json")
    tiny_stable_diffusion().unet.save_config(tmp_path)
    noted = plan(tmp_path)["notes"][0]
    assert noted == f"a denoiser alone, told encoder_hidden_states 77 x 32: {uncounted}"


def test_hours_and_memory_grow_with_steps_and_batch(configs):
    short = plan(configs, {"max_steps": 10})
    longer = plan(configs, {"max_steps": 1000, "retrain": {"batch_size": 128}})
    assert longer["hours"]["retrain"] > 10 * short["hours"]["retrain"]
    assert longer["memory_bytes"]["retrain"] > short["memory_bytes"]["retrain"]


def test_groups_and_gradient_checkpointing_save_memory(configs):
    plain = plan(configs, AS_WIDE)
    saving = {"supernet": {"groups": 3}, "retrain": {"gradient_checkpointing": True}}
    saved = plan(configs, AS_WIDE | saving)
    for stage in ("supernet", "retrain"):
        assert saved["memory_bytes"][stage] < plain["memory_bytes"][stage]


def test_groups_cost_a_teacher_pass_each_and_checkpointing_one_of_the_student(configs, steady):
    plain = plan(configs, AS_WIDE)["hours"]
    saving = {"supernet": {"groups": 3}, "retrain": {"gradient_checkpointing": True}}
    saved = plan(configs, AS_WIDE | saving)["hours"]
    assert saved["retrain"] / plain["retrain"] == pytest.approx(
        (ASKED + 4 * 0.5) / (ASKED + 3 * 0.5)
    )
    assert saved["supernet"] > plain["supernet"]


def test_layers_wider_than_the_teachers_take_their_memory(configs):
    own, wide = (
        plan(configs, {"space": {"trunk": 1, "resnet_widths": widths}})["memory_bytes"]
        for widths in ([0.5], [2, 0.5])
    )
    assert wide["supernet"] > own["supernet"]
    assert wide["retrain"] > own["retrain"]


@pytest.fixture
def steady(monkeypatch):
    """A device on which every call takes two seconds."""
    monkeypatch.setattr("diffnas.measure.latency._time_ms", lambda call, device: 2000.0)


def test_the_pass_is_timed_as_latencies_are(configs, steady):
    # Its own clock would not wait for the work of every kind of device.
    teacher = load_skeleton(str(configs))
    space = make_space(teacher.denoiser, teacher.family, SpaceSettings())
    settings = parse({"supernet": {"batch_size": 8}})
    rate = macs_per_second(teacher, space, settings, torch.device("cpu"))
    workers = workers_for(torch.device("cpu"), 8 * space.teacher.macs)
    assert rate == workers * 8 * space.teacher.macs / 2


def test_the_pass_that_is_timed_is_not_of_zeros(configs, monkeypatch):
    made = []

    def latency_ms(calls, **_):
        made.append(calls["pass"]().sample)
        return {"pass": 1.0}

    monkeypatch.setattr("diffnas.forecast.hours.latency_ms", latency_ms)
    teacher = load_skeleton(str(configs))
    space = make_space(teacher.denoiser, teacher.family, SpaceSettings())
    settings = parse({"supernet": {"batch_size": 8}})
    macs_per_second(teacher, space, settings, torch.device("cpu"))
    assert made[0].isfinite().all()
    assert made[0].all()
    assert all(each.is_meta for each in teacher.denoiser.parameters())  # the plan goes on with it


@pytest.mark.parametrize(
    ("settings", "share"),
    [
        ({}, 1.0),
        ({"output_weight": 0.0}, 0.3),
        ({"output_weight": 0.0, "ramp": 1.0, "schedule": "step"}, 0.5),
        ({"output_weight": 0.0, "schedule": "static"}, 1.0),
        ({"output_weight": 0.0, "schedule": "none"}, 0.0),
    ],
)
def test_retraining_asks_the_teacher_as_long_as_anything_follows_it(settings, share):
    assert asked_share(RetrainSettings(**settings)) == pytest.approx(share, abs=2e-3)


def test_muons_updates_take_their_hours_whatever_the_batch(configs, steady):
    def more(size):
        sizes = {"steps": 10, "batch_size": size}
        found = [
            plan(configs, {"retrain": {**sizes, "optimizer": each}})["hours"]["retrain"]
            for each in ("muon", "adamw")
        ]
        return found[0] - found[1]

    assert more(4) == pytest.approx(more(8))
    assert more(4) > 0


def test_a_smaller_budget_takes_fewer_hours(configs, steady):
    half, quarter = plan(configs, AS_WIDE)["hours"], plan(configs, AS_WIDE, macs=0.25)["hours"]
    share = (ASKED + 3 * 0.25) / (ASKED + 3 * 0.5)
    assert quarter["retrain"] / half["retrain"] == pytest.approx(share)
    assert quarter["evaluate"] < half["evaluate"]
    assert plan(configs, AS_WIDE, params=0.25)["hours"] == half  # its MACs are not known yet


def test_batches_follow_from_what_is_denoised_not_from_the_images(tmp_path):
    tiny_latent_pipeline(block_out_channels=(8,) * 5, **FOUR_LEVELS).save_pretrained(tmp_path)
    made = make_plan(str(tmp_path), parse_budget(macs=0.5), parse({}))
    assert made["settings"]["retrain"]["batch_size"] == 64  # of 128 by 128 images: 4
    assert made["reasons"]["retrain.batch_size"] == "64, for 8 x 8 to denoise"


def test_an_autoencoder_takes_its_hours_too(tmp_path, configs, steady):
    pipeline = tiny_latent_pipeline()
    pipeline.save_pretrained(tmp_path)
    coder = pipeline.vqvae
    image, latent = torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 8, 8)
    encode = call_cost(coder.encoder, (image,)).macs
    decode = call_cost(coder.decoder, (latent,)).macs
    settings = {
        "supernet": {"batch_size": 8},
        "evaluate": {"samples": 100, "seeds": [0, 1], "sampler_steps": 3},
    }
    few, many = (
        make_plan(str(tmp_path), parse_budget(macs=0.5), parse(settings), images=count)
        for count in (10, 1000)
    )
    assert many["hours"]["encode"] == pytest.approx(100 * few["hours"]["encode"])
    calls = 1.5 * many["teacher"]["macs"] * 3
    assert few["hours"]["evaluate"] / few["hours"]["encode"] == pytest.approx(
        (2 * 100 * (calls + 2 * decode)) / (2 * 10 / 0.8 * encode)
    )
    again = make_plan(
        str(tmp_path),
        parse_budget(macs=0.5),
        parse({**settings, "data": {"crop": "buckets"}}),
        images=10,
    )
    assert again["hours"]["encode"] == pytest.approx(1.8 * few["hours"]["encode"])
    assert "encode" not in plan(configs)["hours"]


def test_what_is_left_around_holes_is_encoded_at_every_step(tmp_path, steady, monkeypatch):
    tiny_inpainting().save_pretrained(tmp_path)
    settings = {
        "supernet": {"batch_size": 8, "steps": 10},
        "retrain": {"batch_size": 4, "steps": 30},
        "evaluate": {"samples": 100},
    }

    def hours():
        return make_plan(str(tmp_path), parse_budget(macs=0.5), parse(settings), images=80)["hours"]

    filling = hours()
    monkeypatch.setattr(Teacher, "inpaints", False)
    plain = hours()
    image = plain["encode"] / (2 * 80 / 0.8)
    times = {"supernet": 8 * 10, "retrain": 4 * 30, "evaluate": 2 * 100, "scores": 0, "encode": 0}
    for stage, count in times.items():
        assert filling[stage] - plain[stage] == pytest.approx(count * image), stage


@pytest.mark.parametrize(("augment", "awake"), [("digits", True), ("flip", False)])
def test_a_gpu_holds_the_autoencoder_where_every_step_needs_it(tmp_path, augment, awake):
    pipeline = tiny_latent_pipeline()
    assert coder_on_gpu(pipeline, tmp_path, augment) == (weights(pipeline.vqvae) if awake else 0)


def test_a_gpu_holds_the_autoencoder_of_a_model_that_fills_holes(tmp_path):
    pipeline = tiny_inpainting()
    assert coder_on_gpu(pipeline, tmp_path, "flip") == weights(pipeline.vae)


def weights(coder):
    return 4 * sum(parameter.numel() for parameter in coder.parameters())


def coder_on_gpu(pipeline, folder, augment):
    """Bytes by which a training on a GPU has more than that of a denoiser alone."""
    pipeline.save_pretrained(folder)
    teacher = load_skeleton(str(folder))
    sizes = {"batch_size": 8, "steps": 1}
    settings = {"supernet": sizes, "retrain": sizes, "score": {"batch_size": 8}}
    settings["data"] = {"augment": augment}
    space = make_space(teacher.denoiser, teacher.family, SpaceSettings())

    def held():
        device = torch.device("cuda")
        return stage_bytes(teacher, space, parse(settings), device)["retrain"]

    whole = held()
    for name in ("vae", "vqvae"):
        setattr(teacher.pipeline, name, None)
    return whole - held()


def test_blocks_that_are_searched_take_the_hours_of_their_evaluations(configs, steady):
    def hours(**score):
        return plan(configs, {"score": score})["hours"]["scores"]

    few, more, most = (hours(enumerate=1, evaluations=count) for count in (20, 30, 100_000))
    assert few < more < most


def test_what_no_slot_reaches_is_named_with_its_share(configs):
    made = plan(configs, NO_RESNETS)
    level = tiny_pipeline().unet.up_blocks[1]
    # At 8 x 8 pixels each weight of a convolution multiplies 64 times.
    convs = sum(m.weight.numel() for m in level.modules() if isinstance(m, Conv2d))
    linears = sum(m.weight.numel() for m in level.modules() if isinstance(m, Linear))
    macs = (64 * convs + linears) / made["teacher"]["macs"]
    params = sum(p.numel() for p in level.parameters()) / made["teacher"]["params"]
    shares = f"{macs:.0%} of the MACs, {params:.0%} of the parameters"
    assert f"up_blocks.1 (UpBlock2D), {shares}" in made["left"]
    # A list, which is never called itself.
    assert any(line.startswith("up_blocks.0.resnets (ModuleList)") for line in made["left"])


def test_few_parameters_are_worth_a_word_where_they_cost_many_macs(configs, monkeypatch):
    monkeypatch.setattr("diffnas.plan.WORTH_A_WORD", 0.06)
    left = plan(configs, NO_RESNETS)["left"]
    assert "down_blocks.0 (DownBlock2D), 8% of the MACs, 5% of the parameters" in left


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("sampler_steps", 5000, "the model has 1000 timesteps"),
        ("features", "digits", "samples = 32: too few"),
    ],
)
def test_an_evaluation_that_cannot_be_is_refused(configs, setting, value, words):
    with pytest.raises(UserError, match=words):
        plan(configs, {"evaluate": {"samples": 32, setting: value}})


def test_conditions_left_out_of_a_model_that_has_none_are_refused(configs):
    with pytest.raises(UserError, match=r"condition_dropout = 0\.1: the model has no"):
        plan(configs, {"data": {"condition_dropout": 0.1}})


def test_other_shapes_of_a_model_of_one_size_are_refused(tmp_path):
    tiny_dit().save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"data.crop = buckets: .* of one size alone"):
        plan(tmp_path, {"data": {"crop": "buckets"}})


def test_a_folder_without_a_model_index_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"model_index\.json"):
        plan(tmp_path)
