"""A tiny teacher with data and space, for tests of the engine."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

from diffnas import trunk
from diffnas.data import Data
from diffnas.families import Family, Teacher, unet2d, unet2d_condition
from diffnas.measure import denoising, quality
from diffnas.settings import SpaceSettings
from diffnas.space import make_space
from diffnas.student.modeling import trunk_groups
from diffnas.supernet import Supernet
from diffnas.trunk import widths
from tests.models import tiny_inpainting, tiny_pipeline

NO_GPU = "no CUDA device: a GPU's memory, its clock and offloading from it are nowhere else"
on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason=NO_GPU)

SMALL_SPACE = SpaceSettings(resnet_widths=(0.5,), attention_heads=(0.5, 0.0), conv_min_share=0.0)


@contextmanager
def few_draws() -> Iterator[None]:
    """Measures over fewer draws: with all, they would be most of a run's time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quality, "KERNEL_SUBSETS", 5)
        patch.setattr(denoising, "DRAWS", 128)
        patch.setattr(trunk, "IMAGES", 64)
        yield


def tiny_teacher(seed: int = 0, **overrides: Any) -> Teacher:
    """Random weights; zero-initialised ones too, so that every part matters."""
    pipeline = tiny_pipeline(seed, **overrides)
    scramble(pipeline.unet, seed)
    return teacher_of(pipeline)


def teacher_of(pipeline: Any, family: Family = unet2d.FAMILY) -> Teacher:
    """Of the pipeline as it is."""
    denoiser = pipeline.unet.eval().requires_grad_(False)
    return Teacher("tiny", pipeline, denoiser, family)


def tiny_inpainter() -> Teacher:
    """Fills holes and predicts the clean image, of pixels: a batch shows what was done to it."""
    pipeline = tiny_inpainting("sample", in_channels=7, out_channels=3)
    pipeline.register_modules(vae=None)
    return teacher_of(pipeline, unet2d_condition.FAMILY)


@torch.no_grad()
def scramble(module: torch.nn.Module, seed: int = 0) -> None:
    """Make norms' scales and all biases random: as made, they are all ones and zeros."""
    random = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        if parameter.ndim == 1:
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=random))


def tiny_data(count: int = 40, channels: int = 1, size: int = 8) -> Data:
    """Random images, a fifth of them held out, with labels 0 to 3."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, channels, size, size), dtype=np.uint8)
    rows = np.arange(count)
    return Data("noise", images, rows % 4, rows[: count * 4 // 5], rows[count * 4 // 5 :], "none")


def tiny_supernet(space: SpaceSettings = SMALL_SPACE, **overrides: Any) -> Supernet:
    """The untrained supernet of a tiny teacher."""
    teacher = tiny_teacher(**overrides)
    return Supernet(teacher, make_space(teacher.denoiser, teacher.family, space))


def first_channels(teacher: Teacher, groups: int) -> dict[str, torch.Tensor]:
    """Of each stream, those of its first ``groups`` norm groups."""
    of = trunk_groups(teacher.denoiser)
    found = widths(teacher.denoiser, teacher.family.streams(teacher.denoiser))
    return {stream: torch.arange(width * groups // of) for stream, width in found.items()}


def assert_same(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> None:
    """Equal names and, to the last bit, equal tensors."""
    assert set(one) == set(other)
    different = [name for name in one if not torch.equal(one[name], other[name])]
    assert not different
