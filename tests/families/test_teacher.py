"""Batches that a teacher makes, and how it samples."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from diffnas.data import Embeddings, batch
from diffnas.errors import UserError
from diffnas.families import Batch
from diffnas.families.batches import random_batch, training_batch
from diffnas.measure.cost import call_cost
from tests.engine import tiny_data, tiny_teacher
from tests.painter import NOTHING, level, painter

TOLD = np.array([0.5, 0.1, -0.3, 0.0, 0.2])
HOW = {"seed": 0, "sampler": "ddim", "steps": 1, "batch_size": 2}


def shows(rows):
    return {"value": torch.from_numpy(TOLD[rows]).float()}


def values(images):
    """The byte of each image; all pixels have it."""
    assert (images == images[:, :1, :1, :1]).all()
    return images[:, 0, 0, 0].tolist()


def guided(guidance, teacher=None):
    teacher = teacher or painter()
    return teacher.sample(5, shows=shows, nothing=teacher.nothing(), guidance=guidance, **HOW)


def captioned(share=0.0, count=40):
    return replace(tiny_data(count), captions=("0.5",) * count, condition_dropout=share)


def seeded():
    return torch.Generator().manual_seed(1)


def test_each_image_shows_what_its_index_asks_for():
    assert values(painter().sample(5, shows=shows, **HOW)) == [level(told) for told in TOLD]


def test_guidance_1_gives_the_plain_prediction():
    assert values(guided(1.0)) == [level(told) for told in TOLD]


def test_without_a_condition_for_none_guidance_changes_nothing():
    images = painter().sample(5, shows=shows, guidance=2.0, **HOW)
    assert values(images) == [level(told) for told in TOLD]


@pytest.mark.parametrize("guidance", [0.0, 0.5, 1.7])
def test_guidance_goes_from_the_untold_prediction_past_the_told_one(guidance):
    expected = [level(NOTHING + guidance * (told - NOTHING)) for told in TOLD]
    assert values(guided(guidance)) == expected


@pytest.mark.parametrize(("guidance", "sizes"), [(1.0, [1, 2, 2]), (2.0, [2, 4, 4])])
def test_only_guided_sampling_calls_the_denoiser_for_both(guidance, sizes):
    teacher, seen = painter(), []

    def note(_, __, made):
        if not made.is_meta:  # not the call whose costs are counted
            seen.append(len(made))

    teacher.denoiser.register_forward_hook(note)
    guided(guidance, teacher)
    assert sorted(seen) == sizes


@pytest.mark.parametrize(("guidance", "calls"), [(1.0, 1), (2.0, 2)])
def test_sampling_is_told_the_macs_of_guidance(monkeypatch, guidance, calls):
    told = {}
    monkeypatch.setattr(
        "diffnas.families.teacher.sample_images", lambda *_, **how: told.update(how)
    )
    teacher = tiny_teacher(num_class_embeds=3)
    teacher.sample(4, nothing={"class_labels": torch.tensor([2])}, guidance=guidance, **HOW)
    inputs = teacher.family.example_inputs(teacher.denoiser, 1, torch.device("cpu"))
    assert told["macs"]() == calls * call_cost(teacher.denoiser, kwargs=inputs).macs > 0


def test_guidance_is_the_pipelines_own_unless_asked_for():
    assert painter().guidance() == 5.0
    assert painter().guidance(2.0) == 2.0
    assert painter().guidance(0.0) == 0.0


def test_a_pipeline_that_knows_of_no_guidance_has_none():
    assert replace(painter(), pipeline=tiny_teacher().pipeline).guidance() == 1.0


def test_a_model_that_cannot_be_told_nothing_is_not_guided():
    teacher = replace(painter(), family=replace(painter().family, nothing=None))
    assert teacher.nothing() is None
    assert teacher.guidance(1.0) == teacher.guidance() == 1.0
    with pytest.raises(UserError, match=r"evaluate\.guidance = 2: .* cannot be guided"):
        teacher.guidance(2.0)


def test_nothing_is_what_was_encoded_beforehand_where_it_was():
    rows = {"value": np.array([[0.5]], np.float16)}
    known = Embeddings(rows, {"value": np.array([0.25], np.float16)}, np.zeros(40, int))
    teacher = painter()
    assert teacher.nothing(captioned())["value"].item() == pytest.approx(NOTHING)
    assert teacher.nothing(replace(captioned(), embeddings=known))["value"].item() == 0.25


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_share_of_training_images_goes_without_its_condition(share):
    told = random_batch(painter(), captioned(share), 1000, seeded()).inputs["value"]
    left_out = torch.isclose(told, torch.tensor(NOTHING))
    assert float(left_out.float().mean()) == pytest.approx(share, abs=0.05 if share % 1 else 0)
    assert (told[~left_out] == 0.5).all()


def test_which_conditions_are_left_out_follows_from_the_generator():
    one, same = (random_batch(painter(), captioned(0.3), 50, seeded()) for _ in range(2))
    assert torch.equal(one.inputs["value"], same.inputs["value"])


def test_without_dropout_nothing_is_drawn_for_it():
    teacher, data, random = painter(), captioned(), seeded()
    clean, rows, _ = batch(data, 8, random)
    expected = training_batch(teacher, clean, teacher.condition(data, rows), random)
    found = random_batch(teacher, data, 8, seeded())
    assert torch.equal(found.inputs["sample"], expected.inputs["sample"])
    assert torch.equal(found.inputs["timestep"], expected.inputs["timestep"])


def test_a_model_that_is_not_told_has_nothing_left_out():
    found = random_batch(tiny_teacher(), captioned(1.0), 8, seeded())
    expected = random_batch(tiny_teacher(), captioned(), 8, seeded())
    assert torch.equal(found.target, expected.target)
    assert set(found.inputs) == {"sample", "timestep"}


def test_rows_of_a_batch_are_cut_in_nested_inputs_too():
    pooled, target = torch.arange(8.0).view(4, 2), torch.arange(4.0).view(4, 1, 1, 1)
    whole = Batch({"sample": target, "added_cond_kwargs": {"text_embeds": pooled}}, target)
    part = whole.rows(slice(1, 3))
    assert torch.equal(part.target, target[1:3])
    assert torch.equal(part.inputs["sample"], target[1:3])
    assert torch.equal(part.inputs["added_cond_kwargs"]["text_embeds"], pooled[1:3])


def test_rows_of_a_batch_share_what_is_not_of_its_length():
    shared = {"timestep": torch.tensor(5), "sizes": torch.arange(3), "return_dict": True}
    part = Batch({**shared, "nested": shared}, torch.zeros(4, 1, 1, 1)).rows(slice(0, 2))
    for found in (part.inputs, part.inputs["nested"]):
        assert all(found[name] is each for name, each in shared.items())


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_error_is_that_of_the_targets_channels(reduction):
    made = torch.randn(2, 6, 4, 4, generator=seeded())
    part = Batch({}, torch.zeros(2, 3, 4, 4))
    expected = F.mse_loss(made[:, :3], part.target, reduction=reduction)
    assert torch.equal(part.error(made, reduction), expected)


def test_the_error_is_taken_in_single_precision():
    part = Batch({}, torch.zeros(1, 1, 2, 2, dtype=torch.float16))
    assert part.error(torch.full((1, 1, 2, 2), 300.0, dtype=torch.float16)).item() == 90_000
