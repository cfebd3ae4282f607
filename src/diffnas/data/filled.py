"""A large array in a file, made part by part: work of hours, to be left and taken up."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from diffnas.artifacts import read_json
from diffnas.checkpoint import disk_full, write_json
from diffnas.data.decode import allocate
from diffnas.errors import is_disk_full
from diffnas.progress import Progress

SECONDS = 10.0
"""Between two notes of how far the work has come."""


def filled(
    file: Path,
    shape: tuple[int, ...],
    dtype: type[np.generic],
    make: Callable[[int, int], npt.NDArray[Any]],
    *,
    part: int,
    made_from: str,
    stage: str,
    progress: Progress,
) -> npt.NDArray[Any]:
    """The array in ``file``, mapped, after ``make(first, last)`` has given what rows it lacks.

    ``first`` is always a multiple of ``part``. A note beside the file says how far it is filled and
    what from; rows made from something else, or damaged, are made again.

    Raises:
        RunError: the disk is full.
    """
    note = file.with_suffix(".json")
    done = rows_done(file, shape, dtype, made_from)
    if done < shape[0]:
        array = _opened(file, note, shape, dtype, fresh=done == 0)
        last = time.monotonic()
        progress.start(stage, shape[0], done)
        while done < shape[0]:
            end = min(done + part, shape[0])
            array[done:end] = make(done, end)
            done = end
            progress.update(done)
            if time.monotonic() - last > SECONDS or done == shape[0]:
                array.flush()  # before the note says so
                write_json(note, {"fingerprint": made_from, "done": done})
                last = time.monotonic()
        progress.stop()
    kept: npt.NDArray[Any] = np.load(file, mmap_mode="r")
    return kept


def rows_done(file: Path, shape: tuple[int, ...], dtype: type[np.generic], made_from: str) -> int:
    """How many rows an earlier call has left; 0 if they are of something else or damaged."""
    said = read_json(file.with_suffix(".json")) or {}
    try:
        kept = np.load(file, mmap_mode="r")
    except (FileNotFoundError, EOFError, ValueError):
        return 0
    whole = kept.shape == shape and kept.dtype == dtype
    return int(said["done"]) if whole and said.get("fingerprint") == made_from else 0


def _opened(
    file: Path, note: Path, shape: tuple[int, ...], dtype: type[np.generic], *, fresh: bool
) -> "np.memmap[Any, Any]":
    if not fresh:
        return np.lib.format.open_memmap(file, "r+")
    file.parent.mkdir(parents=True, exist_ok=True)
    note.unlink(missing_ok=True)
    array = np.lib.format.open_memmap(file, "w+", dtype, shape)
    try:
        allocate(file)
    except OSError as error:
        file.unlink()
        if is_disk_full(error):
            raise disk_full(file) from None
        raise
    return array
