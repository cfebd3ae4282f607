"""Latents are computed once, for every version of an image that training draws."""

import errno
from dataclasses import replace

import numpy as np
import pytest
import torch

from diffnas.data import batch, filled
from diffnas.errors import RunError
from diffnas.families import Teacher, unet2d, unet2d_condition
from diffnas.families.batches import random_batch
from diffnas.latents import encoding_on, with_latents
from diffnas.progress import Progress
from tests.engine import teacher_of, tiny_data, tiny_teacher
from tests.models import tiny_inpainting, tiny_latent_pipeline


class Seen(Progress):
    """Where a stage began, and how often it went on."""

    def __init__(self):
        self.began, self.steps = [], 0

    def start(self, stage, total, done=0):
        self.began.append((stage, total, done))

    def update(self, done, **figures):
        self.steps += 1


@pytest.fixture(scope="module")
def teacher():
    pipeline = tiny_latent_pipeline()
    return Teacher("latent", pipeline, pipeline.unet.requires_grad_(False), unet2d.FAMILY)


@pytest.fixture
def data():
    return replace(tiny_data(100, channels=3, size=16), augment="flip")


def test_they_are_of_the_images_as_they_are_and_mirrored(teacher, data, tmp_path):
    made = with_latents(teacher, data, tmp_path)
    assert made.latents.shape == (2, 100, 3, 8, 8)
    rows = np.array([3, 70])
    for version, images in enumerate((data.images, data.images[..., ::-1])):
        expected = teacher.clean(replace(data, images=np.ascontiguousarray(images)), rows)
        found = torch.from_numpy(made.latents[version][rows]).float()
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(
        teacher.clean(made, rows), teacher.clean(data, rows), rtol=1e-3, atol=1e-3
    )


def test_training_draws_both_versions(teacher, data, tmp_path):
    made = with_latents(teacher, data, tmp_path)
    drawn, rows, _ = batch(made, 400, torch.Generator().manual_seed(0))
    kept = torch.from_numpy(np.array(made.latents[:, rows])).float()
    same = (kept == drawn).all((2, 3, 4))
    assert same.any(0).all()
    assert same.any(1).all()
    assert set(rows) <= set(made.seen)
    noisy = random_batch(teacher, made, 4, torch.Generator().manual_seed(0))
    assert noisy.inputs["sample"].shape == (4, 3, 8, 8)


def test_those_of_other_shapes_are_encoded_in_theirs(teacher, data, tmp_path):
    wide = replace(data, images=np.ascontiguousarray(data.images[:9, :, :8]), seen=np.arange(9))
    made = with_latents(teacher, replace(data, buckets=(data, wide)), tmp_path)
    own, other = (part.latents for part in made.buckets)
    assert own is made.latents
    assert other.shape == (2, 9, 3, 4, 8)
    rows = np.array([2, 7])
    expected = teacher.clean(wide, rows)
    torch.testing.assert_close(torch.tensor(other[0][rows]).float(), expected, rtol=1e-3, atol=1e-3)
    seen = Seen()
    with_latents(teacher, replace(data, buckets=(data, wide)), tmp_path, seen)
    assert not seen.began


def test_a_model_of_pixels_has_none(data, tmp_path):
    assert with_latents(tiny_teacher(), data, tmp_path) is data
    assert not list(tmp_path.iterdir())


def test_images_that_are_bent_anew_at_every_step_are_encoded_there(teacher, data, tmp_path):
    bent = with_latents(teacher, replace(data, augment="digits"), tmp_path)
    assert bent.latents is None
    noisy = random_batch(teacher, bent, 4, torch.Generator().manual_seed(0))
    assert noisy.inputs["sample"].shape == (4, 3, 8, 8)


def test_only_what_changes_at_every_step_needs_the_autoencoder_there(teacher, data, tmp_path):
    made = with_latents(teacher, data, tmp_path)
    coder = teacher.pipeline.vqvae
    assert encoding_on(teacher, made) == []
    assert encoding_on(teacher, replace(data, augment="digits")) == [coder]
    assert encoding_on(tiny_teacher(), data) == []
    inpainting = teacher_of(tiny_inpainting(), unet2d_condition.FAMILY)
    assert encoding_on(inpainting, made) == [inpainting.pipeline.vae]


def test_a_second_call_reads_them(teacher, data, tmp_path):
    first = with_latents(teacher, data, tmp_path)
    seen = Seen()
    again = with_latents(teacher, data, tmp_path, seen)
    assert not seen.began
    np.testing.assert_array_equal(again.latents, first.latents)


def test_what_was_interrupted_goes_on(teacher, data, tmp_path, monkeypatch):
    whole = np.array(with_latents(teacher, data, tmp_path / "whole").latents)
    monkeypatch.setattr(filled, "SECONDS", 0.0)

    class Stops(Seen):
        def update(self, done, **figures):
            super().update(done)
            if self.steps == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        with_latents(teacher, data, tmp_path / "cut", Stops())
    seen = Seen()
    found = with_latents(teacher, data, tmp_path / "cut", seen)
    assert seen.began == [("encode", 200, 128)]
    np.testing.assert_array_equal(found.latents, whole)


def test_other_images_get_their_own(teacher, data, tmp_path):
    with_latents(teacher, data, tmp_path)
    others, seen = replace(data, images=data.images[::-1].copy()), Seen()
    found = with_latents(teacher, others, tmp_path, seen)
    assert seen.began == [("encode", 200, 0)]
    np.testing.assert_allclose(
        found.latents[0][0], teacher.clean(others, np.array([0]))[0], rtol=1e-3, atol=1e-3
    )


def test_another_split_or_other_classes_change_nothing(teacher, data, tmp_path):
    with_latents(teacher, data, tmp_path)
    seen = Seen()
    with_latents(teacher, replace(data, seen=data.seen[:5], labels=None), tmp_path, seen)
    assert not seen.began


@pytest.mark.parametrize("left", [b"", b"no array at all"])
def test_a_damaged_file_is_made_again(teacher, data, tmp_path, left):
    whole = np.array(with_latents(teacher, data, tmp_path).latents)
    (tmp_path / "latents.npy").write_bytes(left)
    np.testing.assert_array_equal(with_latents(teacher, data, tmp_path).latents, whole)


def test_a_full_disk_is_told_and_leaves_nothing(teacher, data, tmp_path, monkeypatch):
    def full(file):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(filled, "allocate", full)
    with pytest.raises(RunError, match=r"latents\.npy"):
        with_latents(teacher, data, tmp_path)
    assert not list(tmp_path.iterdir())
