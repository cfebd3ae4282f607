"""Pictures in the shape nearest to their own, so that training sees all that they show.

Aspect ratio bucketing (NovelAI, 2022): shapes of about one area, and a batch all of one shape.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from diffnas.data.decode import Pictures, decode_all
from diffnas.progress import Progress

WIDEST = 2.0
"""Ratio of the longer side to the shorter, at most."""

STEPS = 16
"""A side of the whole picture is about so many steps between two shapes."""

Size = tuple[int, int]
"""(H, W)."""


@dataclass(frozen=True)
class Bucket:
    """Images uint8 (M, C, H, W) of one shape; ``rows``: int64 (M,), which of all they are."""

    images: np.ndarray
    rows: np.ndarray


def shapes(size: Size, sides: range) -> list[Size]:
    """Sizes of such sides and at most the area of ``size``, which is among them.

    One for every width, as high as the area allows.
    """
    height, width = size
    step = sides.step * max(1, round(min(size) / STEPS / sides.step))
    found = {width: height}
    for wide in range(step, int(np.sqrt(WIDEST * height * width)) + 1, step):
        high = height * width // wide // sides.step * sides.step
        if wide in sides and high in sides and max(wide, high) <= WIDEST * min(wide, high):
            found.setdefault(wide, high)
    return [(high, wide) for wide, high in sorted(found.items())]


def bucketed(
    read: Callable[[int], Image.Image],
    whole: Pictures,
    sizes: Sequence[Size],
    channels: int,
    *,
    file: Path | None = None,
    progress: Progress | None = None,
) -> tuple[Bucket, ...]:
    """Those of the pictures again that are nearer to another of the sizes than to their first.

    ``whole``: what ``read`` gave, all of one size; ``file``: the name begins like this of where a
    large bucket is kept.

    Raises:
        RunError: the disk is full.
    """
    if not sizes:
        return ()
    ratios = np.log([width / height for height, width in sizes])
    nearest = np.abs(np.log(whole.ratios)[:, None] - ratios).argmin(1)
    found = []
    for number, (height, width) in enumerate(sizes):
        rows = np.flatnonzero(nearest == number)
        if (height, width) == whole.images.shape[2:] or not len(rows):
            continue
        again = decode_all(
            [int(whole.kept[row]) for row in rows],
            read,
            (height, width),
            channels,
            file=None if file is None else file.with_name(f"{file.stem}-{height}x{width}.npy"),
            progress=progress,
        )
        found.append(Bucket(again.images, rows[np.searchsorted(whole.kept[rows], again.kept)]))
    return tuple(found)
