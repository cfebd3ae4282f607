"""Families whose denoisers take images of other shapes than their samples are trained on these."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from diffnas.data import Data
from diffnas.errors import UserError
from diffnas.families.batches import random_batch
from diffnas.latents import with_latents
from tests.families.kinds import KINDS, teacher

TAKEN = [kind for kind, (_, family) in KINDS.items() if family.sides is not None]
SQUARE = [kind for kind in KINDS if kind not in TAKEN]


def shaped(model, size, count=4) -> Data:
    """Images of a model's own size, all of them trained on in this one."""
    channels, *own = model.image_shape
    random = np.random.default_rng(0)
    images, seen = (
        random.integers(0, 256, (count, channels, *each), np.uint8) for each in (own, size)
    )
    rows = np.arange(count)
    whole = Data("images", images, None, rows, rows[:0], "flip", captions=("a", "b") * (count // 2))
    return replace(whole, buckets=(replace(whole, images=seen),))


@torch.no_grad()
@pytest.mark.parametrize("kind", TAKEN)
def test_batches_of_every_shape_can_be_predicted(kind, tmp_path):
    model = teacher(kind)
    wide = [each for each in model.shapes() if each[1] > each[0]]
    assert model.image_shape[1:] in model.shapes()
    for size in wide[-1:]:
        data = with_latents(model, shaped(model, size), tmp_path)
        batch = random_batch(model, data, 3, torch.Generator().manual_seed(0))
        made = model.family.prediction(model.denoiser(**batch.inputs))
        assert made.shape[2:] == batch.target.shape[2:]
        assert made.shape[3] * size[0] == made.shape[2] * size[1] > made.shape[2] * size[0]


@pytest.mark.parametrize("kind", SQUARE)
def test_a_model_of_one_size_alone_says_so(kind):
    with pytest.raises(UserError, match=r"data.crop = buckets: .* of one size alone; leave it out"):
        teacher(kind).shapes()


@pytest.mark.parametrize(
    ("kind", "entry", "expected"),
    [
        ("texts, two encoders", "time_ids", lambda h, w: [h, w, 0, 0, h, w]),
        ("texts, of images", "time_ids", lambda h, w: [h, w, 0, 0, 6]),
    ],
)
def test_a_model_that_is_told_the_size_is_told_that_of_the_bucket(kind, entry, expected):
    model = teacher(kind)
    height, width = model.shapes()[-1]
    batch = random_batch(model, shaped(model, (height, width)), 2, torch.Generator())
    told = batch.inputs["added_cond_kwargs"][entry]
    assert told.tolist() == [expected(height, width)] * 2


@pytest.mark.parametrize("left_out", [0.0, 1.0])
def test_so_it_is_where_the_caption_is_left_out(left_out):
    model = teacher("texts, two encoders")
    size = model.shapes()[-1]
    data = replace(shaped(model, size), condition_dropout=left_out)
    batch = random_batch(model, data, 2, torch.Generator())
    assert batch.inputs["added_cond_kwargs"]["time_ids"][:, :2].tolist() == [list(size)] * 2
