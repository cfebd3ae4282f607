"""Small pipelines of every family, over which tests say what all of them promise."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import torch

from diffnas.data import Data, Embeddings
from diffnas.families import (
    Family,
    Teacher,
    dit,
    flux,
    flux2,
    pixart,
    sd3,
    unet2d,
    unet2d_condition,
)
from diffnas.families.conditions import CLASSES, MASK, MASKED
from diffnas.rng import generator
from tests.engine import scramble
from tests.models import (
    tiny_dit,
    tiny_flux,
    tiny_flux2,
    tiny_inpainting,
    tiny_lcm,
    tiny_pipeline,
    tiny_pixart,
    tiny_refiner,
    tiny_sd3,
    tiny_stable_diffusion,
    tiny_xl,
)

CPU = torch.device("cpu")

KINDS: dict[str, tuple[Callable[..., Any], Family]] = {
    "pixels": (tiny_pipeline, unet2d.FAMILY),
    "texts": (tiny_stable_diffusion, unet2d_condition.FAMILY),
    "texts, two encoders": (tiny_xl, unet2d_condition.FAMILY),
    "texts, of images": (tiny_refiner, unet2d_condition.FAMILY),
    "texts and images with holes": (tiny_inpainting, unet2d_condition.FAMILY),
    "texts, consistency": (tiny_lcm, unet2d_condition.FAMILY),
    "classes, transformer": (tiny_dit, dit.FAMILY),
    "texts, transformer": (tiny_pixart, pixart.FAMILY),
    "texts, transformer of two streams": (tiny_sd3, sd3.FAMILY),
    "texts, distilled guidance": (tiny_flux, flux.FAMILY),
    "texts, no guidance": (partial(tiny_flux, distilled=False), flux.FAMILY),
    "texts, shared modulation": (tiny_flux2, flux2.FAMILY),
    "texts, few steps": (partial(tiny_flux2, distilled=True), flux2.FAMILY),
}

OF_TEXTS = [kind for kind, (_, family) in KINDS.items() if family.takes_texts]

WITH_STREAMS = [kind for kind, (_, family) in KINDS.items() if family.streams is not None]


@cache
def teacher(kind: str, **overrides: Any) -> Teacher:
    """Of that kind; ``overrides`` of its denoiser's config."""
    make, family = KINDS[kind]
    pipeline = make(**overrides)
    denoiser = getattr(pipeline, family.component).eval().requires_grad_(False)
    scramble(denoiser)
    return Teacher(kind, pipeline, denoiser, family)


def inputs_of(model: Teacher, count: int = 2) -> dict[str, Any]:
    """A call on noise, with a condition that is not zero."""
    random = generator(0, "test", 0)
    family = model.family
    noisy = torch.randn(count, *family.sample_shape(model.denoiser), generator=random)
    condition = {
        name: torch.randn(each.shape, generator=random) if each.is_floating_point() else each + 1
        for name, each in family.example_condition(model.denoiser, count, CPU).items()
    }
    times = torch.tensor([3, 700, 40][:count])
    return family.inputs(model.denoiser, noisy, times, condition)


def told(model: Teacher, count: int) -> dict[str, torch.Size]:
    """Shapes of a condition, without what is shown."""
    example = model.family.example_condition(model.denoiser, count, CPU)
    return {name: each.shape for name, each in example.items() if name not in (MASK, MASKED)}


def data_of(model: Teacher, count: int = 24) -> Data:
    """What such a teacher denoises and is told, of no meaning; encoded beforehand."""
    rows = np.arange(count)
    shape = (1, count, *model.family.sample_shape(model.denoiser))
    latents = np.random.default_rng(0).standard_normal(shape).astype(np.float16)
    told = model.family.example_condition(model.denoiser, count, CPU)
    arrays = {name: each.numpy() for name, each in told.items()}
    about: dict[str, Any] = {"labels": arrays.pop(CLASSES, None), "latents": latents}
    if arrays:
        nothing = {name: each[:1] for name, each in arrays.items()}
        about |= {"captions": ("",) * count, "embeddings": Embeddings(arrays, nothing, rows)}
    return Data("noise", latents[0], seen=rows, held_out=rows, augment="none", **about)
