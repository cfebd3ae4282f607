"""Families whose denoisers take images of other shapes than their samples are trained on these."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from diffnas.data import Data
from diffnas.errors import UserError
from diffnas.families import Teacher, pixart, sd3, unet2d
from diffnas.families.batches import random_batch
from diffnas.latents import with_latents
from tests.engine import teacher_of
from tests.families.kinds import KINDS, teacher
from tests.models import tiny_pipeline, tiny_pixart_alpha

TAKEN = [kind for kind, (_, family) in KINDS.items() if family.sides is not None]
SQUARE = [kind for kind in KINDS if kind not in TAKEN]


ALONE = r"data.crop = buckets: .* of one size alone; leave it out"


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
    height, width = model.image_shape[1:]
    assert (height, width) in model.shapes()
    assert len(model.shapes()) > 2
    for size in model.shapes():
        data = with_latents(model, shaped(model, size), tmp_path)
        batch = random_batch(model, data, 3, torch.Generator().manual_seed(0))
        made = model.family.prediction(model.denoiser(**batch.inputs), batch.size)
        assert made.shape[2:] == batch.target.shape[2:]
        own = model.family.sample_shape(model.denoiser)[1:]
        assert made.shape[2] * height == own[0] * size[0]
        assert made.shape[3] * width == own[1] * size[1]


def test_sides_can_be_halved_on_every_level_but_the_lowest():
    three = tiny_pipeline(
        block_out_channels=(16, 16, 16),
        down_block_types=("DownBlock2D",) * 3,
        up_block_types=("UpBlock2D",) * 3,
    )
    assert 12 in unet2d.sides(three.unet)
    assert 10 not in unet2d.sides(three.unet)


def test_sides_are_no_longer_than_there_are_positions():
    transformer = teacher("texts, transformer of two streams").denoiser
    most = transformer.config.pos_embed_max_size * transformer.config.patch_size
    assert max(sd3.sides(transformer)) == most


def test_what_an_image_shows_is_told_of_the_bucket():
    model = teacher("texts")
    data = shaped(model, model.shapes()[0])
    (part,) = data.buckets
    data = replace(data, captions=("a",) * 4, buckets=(replace(part, captions=("b",) * 4),))
    batch = random_batch(model, data, 2, torch.Generator())
    told = batch.inputs["encoder_hidden_states"]
    torch.testing.assert_close(told, model.told(["b", "b"])["encoder_hidden_states"])


@pytest.mark.parametrize("kind", SQUARE)
def test_a_model_of_one_size_alone_says_so(kind):
    with pytest.raises(UserError, match=ALONE):
        teacher(kind).shapes()


def test_so_does_one_so_small_that_no_other_shape_has_room():
    with pytest.raises(UserError, match=ALONE):
        teacher_of(tiny_pipeline(sample_size=4), unet2d.FAMILY).shapes()


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


def test_pixart_is_told_height_and_width_and_their_ratio():
    pipeline = tiny_pixart_alpha()
    model = Teacher("pixart", pipeline, pipeline.transformer, pixart.FAMILY)
    height, width = model.shapes()[-1]
    batch = random_batch(model, shaped(model, (height, width)), 2, torch.Generator())
    told = batch.inputs["added_cond_kwargs"]
    assert told["resolution"].tolist() == [[height, width]] * 2
    assert told["aspect_ratio"].tolist() == [pytest.approx([height / width])] * 2


@pytest.mark.parametrize("left_out", [0.0, 1.0])
def test_so_it_is_where_the_caption_is_left_out(left_out):
    model = teacher("texts, two encoders")
    size = model.shapes()[-1]
    data = replace(shaped(model, size), condition_dropout=left_out)
    batch = random_batch(model, data, 2, torch.Generator())
    assert batch.inputs["added_cond_kwargs"]["time_ids"][:, :2].tolist() == [list(size)] * 2
