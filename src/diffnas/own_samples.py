"""The teacher's own samples in place of images, for those who have none: ``--data teacher``."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from diffnas.data import Data
from diffnas.data.filled import filled
from diffnas.data.split import split
from diffnas.defaults import evaluation_batch
from diffnas.errors import UserError
from diffnas.families import Teacher
from diffnas.fingerprint import fingerprint, of_teacher
from diffnas.names import OWN_SAMPLES
from diffnas.progress import Progress
from diffnas.rng import generator
from diffnas.settings import Settings

COUNT = 10_000
"""Samples, unless ``data.limit`` says how many."""

PART = 256
"""Samples of one seed."""

FIRST_SEED = 10**9
"""Far from any seed that an evaluation would draw with: its samples must be others."""


def own_samples(
    teacher: Teacher, settings: Settings, folder: Path, progress: Progress | None = None
) -> Data:
    """Images that the teacher makes with the sampler of the evaluation, kept in ``folder``.

    Classes, where it takes any, are equally frequent. Nothing is augmented unless asked for: what
    may be mirrored is not known.

    Raises:
        UserError: the sampler does not fit the teacher, or the split is to be by folders.
        RunError: the disk is full, or samples are not finite.
    """
    how, judged = settings.data, settings.evaluate
    if how.split_by == "folder":
        raise UserError("data.split_by = folder: the teacher's own samples have none; use file")
    count, (channels, height, width) = how.limit or COUNT, teacher.image_shape
    classes = teacher.family.class_count(teacher.denoiser)
    labels: npt.NDArray[np.int64] | None = None
    if classes is not None:
        labels = torch.randint(
            classes, (count,), generator=generator(0, "classes of own samples", 0)
        ).numpy()

    def sampled(first: int, last: int) -> npt.NDArray[Any]:
        images: npt.NDArray[Any] = teacher.family.sample(
            teacher.pipeline,
            teacher.denoiser,
            last - first,
            seed=FIRST_SEED + first // PART,
            sampler=judged.sampler,
            steps=judged.sampler_steps,
            batch_size=evaluation_batch(judged, (height, width)),
            labels=None if labels is None else labels[first:last],
        )
        return images

    images = filled(
        folder / "samples.npy",
        (count, channels, height, width),
        np.uint8,
        sampled,
        part=PART,
        made_from=fingerprint(of_teacher(teacher), judged.sampler, judged.sampler_steps),
        stage="draw",
        progress=progress or Progress(),
    )
    seen, held_out = split(np.zeros(count, int) if labels is None else labels, how.held_out)
    augment = "none" if how.augment == "auto" else how.augment
    return Data(OWN_SAMPLES, images, labels, seen, held_out, augment)
