"""The teacher's own samples in place of images, for those who have none: ``--data teacher``."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from diffnas.data import Data, meant
from diffnas.data.filled import filled
from diffnas.data.meant import check_meant
from diffnas.data.split import Enough, divide
from diffnas.defaults import evaluation_batch
from diffnas.errors import UserError
from diffnas.families import Teacher
from diffnas.families.conditions import random_classes
from diffnas.fingerprint import fingerprint, of_teacher
from diffnas.names import OWN_SAMPLES
from diffnas.progress import Progress
from diffnas.settings import Settings

COUNT = 10_500
"""Samples, unless ``data.limit`` says how many: the fifth held out is enough for Inception."""

PART = 256
"""Samples of one seed."""

FIRST_SEED = 10**9
"""Far from any seed that an evaluation would draw with: its samples must be others."""


def own_samples(
    teacher: Teacher,
    settings: Settings,
    folder: Path,
    progress: Progress | None = None,
    enough: Enough = lambda seen, held_out: None,
) -> Data:
    """Images that the teacher makes with the sampler of the evaluation, kept in ``folder``.

    Classes, where it takes any, are equally frequent; texts are those of ``data.prompts``, in turn.
    Nothing is augmented unless asked for: what may be mirrored is not known. ``enough`` is told how
    many will be seen and held out before any is drawn.

    Raises:
        UserError: the sampler does not fit the teacher, a setting means nothing for own samples,
            there are no prompts for a model of texts or some for another, or the teacher fills
            holes in images.
        RunError: the disk is full, or samples are not finite.
    """
    how, judged = settings.data, settings.evaluate
    check_meant(meant.OWN_SAMPLES, how.model_dump())
    if teacher.inpaints:
        raise UserError(
            f"data = {OWN_SAMPLES}: the model fills holes in images, and there are none; "
            "give a folder of images or a Hub data set"
        )
    count = how.limit or COUNT
    shape = (count, *teacher.image_shape)
    labels, captions = _classes(teacher, count), _captions(teacher, how.prompts, count)
    seen, held_out = divide(count, labels, None, by="file", held_out=how.held_out)
    enough(len(seen), len(held_out))
    nowhere = np.broadcast_to(np.uint8(0), shape)  # takes no memory
    augment = "none" if how.augment == "auto" else how.augment
    data = Data(OWN_SAMPLES, nowhere, labels, seen, held_out, augment, captions=captions)
    guidance = teacher.guidance(judged.guidance)

    def sampled(first: int, last: int) -> npt.NDArray[Any]:
        return teacher.sample(
            last - first,
            seed=FIRST_SEED + first // PART,
            sampler=judged.sampler,
            steps=judged.sampler_steps,
            batch_size=evaluation_batch(judged, (shape[2], shape[3])),
            shows=lambda indices: teacher.condition(data, first + indices),
            nothing=teacher.nothing(),
            guidance=guidance,
        )

    told = [] if guidance == 1.0 and captions is None else [guidance, captions]
    images = filled(
        folder / "samples.npy",
        shape,
        np.uint8,
        sampled,
        part=PART,
        made_from=fingerprint(of_teacher(teacher), judged.sampler, judged.sampler_steps, *told),
        stage="draw",
        progress=progress or Progress(),
    )
    return replace(data, images=images)


def _classes(teacher: Teacher, count: int) -> npt.NDArray[np.int64] | None:
    classes = teacher.family.class_count(teacher.denoiser)
    if classes is None:
        return None
    return random_classes(count, classes, 0, "classes of own samples")


def _captions(teacher: Teacher, prompts: str | None, count: int) -> tuple[str, ...] | None:
    if not teacher.family.takes_texts:
        if prompts is not None:
            raise UserError(f"data.prompts = {prompts}: the model takes no text; leave it out")
        return None
    if prompts is None:
        raise UserError(
            "data.prompts: not given, and the model takes text; name a text file of captions, one "
            "a line"
        )
    try:
        lines = Path(prompts).expanduser().read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise UserError(f"data.prompts {prompts}: {reason}; name a text file") from None
    texts = [line.strip() for line in lines if line.strip()]
    if not texts:
        raise UserError(f"data.prompts {prompts}: holds no captions; write one a line")
    return tuple(itertools.islice(itertools.cycle(texts), count))
