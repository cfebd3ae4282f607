"""What an autoencoder makes of the images, computed once.

Every image is encoded as it is and, where training mirrors images, mirrored too: a mirrored latent
is not the latent of the mirrored image. Images augmented in other ways are encoded at every step.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from diffnas.data import Data, mirrored
from diffnas.data.filled import filled
from diffnas.families import Teacher
from diffnas.families.autoencoder import shrinking
from diffnas.families.resting import awake
from diffnas.fingerprint import fingerprint, of_images, of_module
from diffnas.progress import Progress

PART = 64
"""Images between two signs of progress."""

VERSIONS = {"none": 1, "flip": 2}
"""Versions of an image that are kept, by augmentation: as it is, mirrored."""


def encoding_on(teacher: Teacher, data: Data) -> list[nn.Module]:
    """The autoencoder, where it encodes at every step in spite of latents that are kept.

    What is left of an image around a hole is another image at every step.
    """
    anew = data.latents is None or teacher.inpaints
    return [teacher.coder] if teacher.coder is not None and anew else []


def with_latents(
    teacher: Teacher, data: Data, folder: Path, progress: Progress | None = None
) -> Data:
    """The data with the teacher's latents, kept in ``folder``; as they are for a model of pixels.

    Raises:
        RunError: the disk is full.
    """
    coder = teacher.coder
    if coder is None or data.augment not in VERSIONS:
        return data
    progress = progress or Progress()
    with awake([coder], teacher.device):
        kept = _encoded(teacher, data, folder / "latents.npy", progress)
        parts = []
        for part in data.buckets:
            if part.images is data.images:
                parts.append(replace(part, latents=kept))
                continue
            height, width = part.images.shape[2:]
            file = folder / f"latents-{height}x{width}.npy"
            parts.append(replace(part, latents=_encoded(teacher, part, file, progress)))
    return replace(data, latents=kept, buckets=tuple(parts))


def _encoded(teacher: Teacher, data: Data, file: Path, progress: Progress) -> npt.NDArray[Any]:
    """Float16 (versions, N, c, h, w)."""
    versions, count = VERSIONS[data.augment], len(data.images)
    channels = teacher.family.sample_shape(teacher.denoiser)[0]
    factor = shrinking(teacher.coder)
    shape = (versions, count, channels, *(side // factor for side in data.images.shape[2:]))

    def encoded(first: int, last: int) -> npt.NDArray[Any]:
        rows = np.arange(first, last)
        images = mirrored(data, rows % count, torch.from_numpy(rows >= count))
        return teacher.encode(images).to(torch.float16).cpu().numpy()

    kept = filled(
        file,
        (versions * count, *shape[2:]),
        np.float16,
        encoded,
        part=PART,
        made_from=fingerprint(of_module(teacher.coder), of_images(data)),
        stage="encode",
        progress=progress,
    )
    return kept.reshape(shape)
