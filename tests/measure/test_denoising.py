from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler

from diffnas.data import Data, load_data
from diffnas.families import Batch, Teacher
from diffnas.families.loading import load_teacher
from diffnas.measure import denoising
from diffnas.measure.denoising import denoising_loss
from tests.engine import teacher_of
from tests.models import tiny_pipeline


@pytest.fixture(scope="module")
def data() -> Data:
    return load_data("digits", size=(8, 8), channels=1)


def tiny(**overrides: Any) -> Teacher:
    """A teacher that has learnt nothing."""
    return teacher_of(tiny_pipeline(**overrides))


def test_the_denoising_loss_does_not_depend_on_the_batch_size(data: Data) -> None:
    teacher = load_teacher("digits")
    one, other = (denoising_loss(teacher, data, size) for size in (50, 359))
    assert one == pytest.approx(other, rel=1e-6)


def test_the_denoising_loss_is_that_of_the_training_target(data: Data) -> None:
    silent = tiny()
    for parameter in silent.denoiser.conv_out.parameters():
        torch.nn.init.zeros_(parameter)
    # Predicting nothing costs the variance of the noise, or the images' mean square.
    assert denoising_loss(silent, data, 100) == pytest.approx(1, abs=0.02)
    clean = replace(
        silent, pipeline=tiny_pipeline(scheduler=DDPMScheduler(prediction_type="sample"))
    )
    images = data.images[data.held_out] / 127.5 - 1
    assert denoising_loss(clean, data, 100) == pytest.approx((images**2).mean(), rel=1e-5)


def test_every_held_out_image_meets_several_noise_levels(
    data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    images: set[bytes] = set()
    timesteps: list[int] = []

    real = Teacher.training_batch

    def watched(teacher: Teacher, clean: torch.Tensor, *given: Any) -> Batch:
        images.update(image.numpy().tobytes() for image in clean)
        timesteps.extend(given[-1].tolist())
        return real(teacher, clean, *given)

    monkeypatch.setattr(denoising, "DRAWS", 3 * len(data.held_out) + 1)
    monkeypatch.setattr(Teacher, "training_batch", watched)
    denoising_loss(tiny(), data, 100)
    assert len(images) == len({image.tobytes() for image in data.images[data.held_out]})
    assert len(timesteps) == 3 * len(data.held_out)
    assert len(set(timesteps)) > 900  # of the schedule's 1000
