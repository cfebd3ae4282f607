"""Pictures in the shape nearest to their own, so that training sees more of them.

Aspect ratio bucketing (NovelAI, 2022): shapes of about one area, and a batch all of one shape.
"""

import hashlib
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
"""From one shape to the next a side changes by the whole picture's, divided by about this."""

Size = tuple[int, int]
"""(H, W)."""


@dataclass(frozen=True)
class Bucket:
    """Images uint8 (M, C, H, W) of one shape; ``rows``: int64 (M,), which of all they are."""

    images: np.ndarray
    rows: np.ndarray


def shapes(size: Size, sides: range) -> list[Size]:
    """Sizes of such sides and at most the area of ``size``, which is among them.

    One for every longer side, the other as long as the area allows, wide and high.
    """
    area = size[0] * size[1]
    step = sides.step * max(1, round(min(size) / STEPS / sides.step))
    found = {size}
    for longer in range(step, int(np.sqrt(WIDEST * area)) + 1, step):
        shorter = area // longer // sides.step * sides.step
        if longer in sides and shorter in sides and shorter < longer <= WIDEST * shorter:
            found |= {(shorter, longer), (longer, shorter)}
    return sorted(found, key=lambda each: each[1] / each[0])


def bucketed(
    read: Callable[[int], Image.Image],
    whole: Pictures,
    rows: np.ndarray,
    sizes: Sequence[Size],
    *,
    file: Path | None = None,
    progress: Progress | None = None,
) -> tuple[Bucket, ...]:
    """Those of the rows again that are nearer to another of the sizes than to their first.

    ``whole``: what ``read`` gave, all of one size; ``rows``: of it, in ascending order; ``file``:
    the name begins like this of where a large bucket is kept.

    Raises:
        RunError: the disk is full.
    """
    if not sizes:
        return ()
    ratios = np.log([width / height for height, width in sizes])
    nearest = np.abs(np.log(whole.ratios[rows])[:, None] - ratios).argmin(1)
    found = []
    for number, (height, width) in enumerate(sizes):
        those = rows[nearest == number]
        if (height, width) == whole.images.shape[2:] or not len(those):
            continue
        wanted = whole.kept[those]
        which = hashlib.sha256(wanted.tobytes()).hexdigest()[:8]
        kept = file and file.with_name(f"{file.stem}-{height}x{width}-{which}.npy")
        again = decode_all(
            wanted.tolist(),
            read,
            (height, width),
            whole.images.shape[1],
            file=kept,
            progress=progress,
        )
        found.append(Bucket(again.images, those[np.searchsorted(wanted, again.kept)]))
    return tuple(found)
