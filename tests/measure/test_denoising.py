from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

from diffnas.data import Data
from diffnas.families import Batch, Teacher
from diffnas.families.loading import load_teacher
from diffnas.measure import denoising
from diffnas.measure.denoising import denoising_loss
from tests.engine import teacher_of
from tests.models import tiny_pipeline


@pytest.fixture(autouse=True)
def all_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as outside of tests."""
    monkeypatch.setattr(denoising, "DRAWS", 2048)


def tiny(**overrides: Any) -> Teacher:
    """A teacher that has learnt nothing."""
    return teacher_of(tiny_pipeline(**overrides))


def test_the_denoising_loss_does_not_depend_on_the_batch_size(data: Data) -> None:
    teacher = load_teacher("digits")
    one, other = (denoising_loss(teacher, data, size) for size in (50, 359))
    assert one == pytest.approx(other, rel=1e-6)


def test_the_denoising_loss_asks_no_device_for_double_precision(
    data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(_: torch.Tensor) -> torch.Tensor:
        raise TypeError("Apple's GPUs have no float64")

    monkeypatch.setattr(torch.Tensor, "double", unknown)
    assert denoising_loss(tiny(), data, 512) > 0


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
    rows: set[int] = set()
    timesteps: list[int] = []

    real = denoising.batch_of

    def watched(teacher: Teacher, data: Data, drawn: np.ndarray, *given: Any) -> Batch:
        rows.update(drawn.tolist())
        timesteps.extend(given[-1].tolist())
        return real(teacher, data, drawn, *given)

    monkeypatch.setattr(denoising, "DRAWS", 3 * len(data.held_out) + 1)
    monkeypatch.setattr(denoising, "batch_of", watched)
    denoising_loss(tiny(), data, 100)
    assert rows == set(data.held_out.tolist())
    assert len(timesteps) == 3 * len(data.held_out)
    assert len(set(timesteps)) > 900  # of the schedule's 1000
