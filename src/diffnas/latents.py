"""What an autoencoder makes of the images, computed once into a file, to be left and taken up.

Every image is encoded as it is and, where training mirrors images, mirrored too: a mirrored latent
is not the latent of the mirrored image. Images augmented in other ways are encoded at every step.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from diffnas.artifacts import read_json
from diffnas.checkpoint import disk_full, is_disk_full, write_json
from diffnas.data import Data, to_float
from diffnas.data.decode import allocate
from diffnas.families import Teacher
from diffnas.families.autoencoder import autoencoder_of
from diffnas.fingerprint import fingerprint, of_data, of_module
from diffnas.progress import Progress

PART = 64
"""Images between two looks at the clock."""

SECONDS = 10.0
"""Between two notes of how far the work has come."""

VERSIONS = {"none": 1, "flip": 2}
"""Versions of an image that are kept, by augmentation: as it is, mirrored."""


def with_latents(
    teacher: Teacher, data: Data, folder: Path, progress: Progress | None = None
) -> Data:
    """The data with the teacher's latents, kept in ``folder``; as they are for a model of pixels.

    Raises:
        RunError: the disk is full.
    """
    coder = autoencoder_of(teacher.pipeline)
    if coder is None or data.augment not in VERSIONS:
        return data
    sample = teacher.family.sample_shape(teacher.denoiser)
    shape = (VERSIONS[data.augment], len(data.images), *sample)
    made_from = fingerprint(of_module(coder), of_data(data), shape)
    file, note = folder / "latents.npy", folder / "latents.json"
    done = _done(file, note, made_from, shape)
    if done < shape[0] * shape[1]:
        latents = _opened(file, note, shape, fresh=done == 0)

        def noted(done: int) -> None:
            latents.flush()  # before the note says so
            write_json(note, {"fingerprint": made_from, "done": done})

        _fill(teacher, data, latents, done, noted, progress=progress or Progress())
    return replace(data, latents=np.load(file, mmap_mode="r"))


def _done(file: Path, note: Path, made_from: str, shape: tuple[int, ...]) -> int:
    """How many latents an earlier call has left; 0 if they are of other images or damaged."""
    said = read_json(note) or {}
    try:
        kept = np.load(file, mmap_mode="r")
    except (FileNotFoundError, EOFError, ValueError):
        return 0
    whole = kept.shape == shape and kept.dtype == np.float16
    return int(said["done"]) if whole and said.get("fingerprint") == made_from else 0


def _opened(
    file: Path, note: Path, shape: tuple[int, ...], *, fresh: bool
) -> "np.memmap[tuple[int, ...], np.dtype[np.float16]]":
    if not fresh:
        return np.lib.format.open_memmap(file, "r+")
    file.parent.mkdir(parents=True, exist_ok=True)
    note.unlink(missing_ok=True)
    latents = np.lib.format.open_memmap(file, "w+", np.float16, shape)
    try:
        allocate(file)
    except OSError as error:
        file.unlink()
        if is_disk_full(error):
            raise disk_full(file) from None
        raise
    return latents


def _fill(
    teacher: Teacher,
    data: Data,
    latents: npt.NDArray[np.float16],
    done: int,
    noted: Callable[[int], None],
    *,
    progress: Progress,
) -> None:
    """Encode what is left; ``done`` counts over both versions of all images."""
    count, last = latents.shape[1], time.monotonic()
    total = len(latents) * count
    progress.start("encode", total, done)
    while done < total:
        version, first = divmod(done, count)
        rows = slice(first, min(first + PART, count))
        images = to_float(data.images[rows])
        given = teacher.encode(images.flip(-1) if version else images)
        latents[version, rows] = given.to(torch.float16).cpu().numpy()
        done += rows.stop - rows.start
        progress.update(done)
        if time.monotonic() - last > SECONDS or done == total:
            noted(done)
            last = time.monotonic()
    progress.stop()
