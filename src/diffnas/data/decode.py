"""Turning pictures of any kind into one uint8 array (N, channels, H, W)."""

from __future__ import annotations

import errno
import os
import struct
import warnings
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from diffnas.checkpoint import sweep, write_atomically
from diffnas.errors import RunError
from diffnas.progress import Progress

LARGE = 2**26  # bytes; more than this goes to a file, where one is allowed

UNREADABLE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    Image.DecompressionBombError,
    LookupError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What Pillow's plugins raise on broken files: also whatever a wrong number trips them over."""


def to_array(image: Image.Image, size: tuple[int, int], channels: int) -> np.ndarray:
    """Flatten on white, crop the centre to shape, resize: uint8 (channels, H, W)."""
    if image.mode.startswith("I") or image.mode == "F":
        image = _eight_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("L" if channels == 1 else "RGB")
    # Pillow's resampling widens its filter when shrinking, so this does not alias.
    image = ImageOps.fit(image, size[::-1], Image.Resampling.LANCZOS)
    array = np.asarray(image)
    return array[None] if channels == 1 else array.transpose(2, 0, 1)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits, of 32 bits or of floats to 8 bits; Pillow's own conversion clips."""
    values = np.asarray(image).astype(np.float64)
    top = values.max(initial=0)
    full = next(f for f in (1.0, 255.0, 65535.0, max(top, 1.0)) if top <= f)
    if image.mode.startswith("I;16"):
        full = 65535.0
    return Image.fromarray((values.clip(0) * (255 / full)).round().astype(np.uint8))


@dataclass(frozen=True)
class Pictures:
    """Those of some pictures that could be read.

    ``images``: uint8 (K, channels, H, W); ``kept``: int64 (K,), which they are, in ascending order;
    ``ratios``: float64 (K,), of their own width to their height.
    """

    images: np.ndarray
    kept: np.ndarray
    ratios: np.ndarray


def decode_all(
    wanted: Sequence[int],
    read: Callable[[int], Image.Image],
    size: tuple[int, int],
    channels: int,
    *,
    file: Path | None = None,
    progress: Progress | None = None,
) -> Pictures:
    """Decode the pictures of these numbers, in ascending order, to one size (H, W).

    A large set is decoded once into `file`, if given, and mapped from there afterwards; damaged
    ones are made again.

    Raises:
        RunError: the disk is full, or does not keep what is written.
    """
    shape = (len(wanted), channels, *size)
    progress = progress or Progress()
    if file is None or np.prod(shape) < LARGE:
        images = np.empty(shape, np.uint8)
        kept, ratios = _fill(images, wanted, read, progress)
        return Pictures(images[: len(kept)], kept, ratios)
    kept_file, ratios_file = (file.with_suffix(f".{name}.npy") for name in ("kept", "ratios"))
    sweep(file)  # what killed runs left of it can be as large as the set

    def write(temporary: Path) -> None:
        images = np.lib.format.open_memmap(temporary, "w+", np.uint8, shape)
        allocate(temporary)
        kept, ratios = _fill(images, wanted, read, progress)
        images.flush()
        np.save(kept_file, kept)
        np.save(ratios_file, ratios)

    found = _mapped(file, kept_file, ratios_file, shape)
    if found is None:
        write_atomically(file, write)  # its presence says that all is done
        found = _mapped(file, kept_file, ratios_file, shape)
    if found is None:
        raise RunError(f"{file}: damaged as soon as it was written; check the disk")
    return found


def _mapped(
    file: Path, kept_file: Path, ratios_file: Path, shape: tuple[int, ...]
) -> Pictures | None:
    """What an earlier run decoded; None if there is nothing, or it is damaged."""
    try:
        kept, ratios = np.load(kept_file), np.load(ratios_file)
        images = np.load(file, mmap_mode="r")
    except (FileNotFoundError, EOFError, ValueError):
        return None
    if images.shape != shape or images.dtype != np.uint8:
        return None
    if kept.dtype != np.int64 or ratios.shape != kept.shape:
        return None
    return Pictures(images[: len(kept)], kept, ratios)


def allocate(file: Path) -> None:
    """Take a file's whole length now: a full disk kills whoever writes to a mapped hole."""
    if not hasattr(os, "posix_fallocate"):
        return
    with file.open("r+b") as opened:
        try:
            os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)
        except OSError as error:
            # Not every file system can.
            if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                raise


def _fill(
    images: np.ndarray,
    wanted: Sequence[int],
    read: Callable[[int], Image.Image],
    progress: Progress,
) -> tuple[np.ndarray, np.ndarray]:
    """Write the readable pictures to the front of `images`; their numbers and ratios."""
    _, channels, height, width = images.shape

    def decode(number: int) -> tuple[np.ndarray, float] | None:
        try:
            image = ImageOps.exif_transpose(read(number))
        except UNREADABLE:  # one bad picture among many is left out and counted
            return None
        try:
            return to_array(image, (height, width), channels), image.width / image.height
        # Modes that Pillow cannot convert, sizes of nothing, values that are no numbers.
        except (ArithmeticError, LookupError, OSError, StopIteration, ValueError):
            return None

    kept: list[int] = []
    ratios: list[float] = []
    progress.start("decode", len(wanted))
    with warnings.catch_warnings(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        warnings.simplefilter("ignore")  # Pillow's remarks on odd metadata, thread-wide
        for done, found in enumerate(pool.map(decode, wanted)):
            if found is not None:
                images[len(kept)], ratio = found
                kept.append(wanted[done])
                ratios.append(ratio)
            progress.update(done + 1)
    progress.stop()
    return np.array(kept, dtype=np.int64), np.array(ratios)
