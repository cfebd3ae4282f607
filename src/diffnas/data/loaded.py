"""What is asked of a source of images, and what it gives before it is split."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from diffnas.data.buckets import Bucket, bucketed
from diffnas.data.decode import Pictures, decode_all
from diffnas.progress import Progress

Again = Callable[[np.ndarray], tuple[Bucket, ...]]
"""Rows int64 (M,) -> their buckets."""

Announced = Callable[[int, np.ndarray | None, np.ndarray | None], None]
"""(how many pictures, their classes, their parent folders) -> None."""


@dataclass(frozen=True)
class Asked:
    """What is asked of a source of images, of whatever kind it is.

    ``size``: (H, W) that images are cropped and resized to; ``shapes``: further ones, for pictures
    that these are nearer to. ``cache``: where large sets are kept decoded; ``limit``: at most so
    many images; ``announced``: told of the pictures before any is decoded, may refuse.
    """

    size: tuple[int, int]
    channels: int
    shapes: Sequence[tuple[int, int]] = ()
    captioned: bool = False
    caption_column: str | None = None
    cache: Path | None = None
    limit: int | None = None
    progress: Progress = field(default_factory=Progress)
    announced: Announced = lambda *_: None

    def decoded(
        self,
        count: int,
        read: Callable[[int], Image.Image],
        key: str,
        labels: np.ndarray | None = None,
        groups: np.ndarray | None = None,
    ) -> tuple[Pictures, Again]:
        """The pictures 0 to ``count`` - 1 in that size, and what makes those of other shapes.

        ``key``: names what is kept of them; ``labels``, ``groups``: int64 (count,), as in what is
        :class:`Loaded`.
        """
        self.announced(count, labels, groups)
        file = None if self.cache is None else self.cache / f"{key}.npy"
        kept: dict[str, Any] = {"file": file, "progress": self.progress}
        whole = decode_all(range(count), read, self.size, self.channels, **kept)
        return whole, lambda rows: bucketed(read, whole, rows, self.shapes, **kept)


@dataclass(frozen=True)
class Loaded:
    """Images uint8 (N, C, H, W) and what is known of each.

    ``labels``, ``groups``: int64 (N,), classes and parent folders; ``captions``: a text each; None
    where not asked for or not there. ``skipped``: how many could not be read. ``again``: gives, of
    rows, those that are nearer to another shape, in that one.
    """

    images: np.ndarray
    labels: np.ndarray | None = None
    captions: tuple[str, ...] | None = None
    groups: np.ndarray | None = None
    skipped: int = 0
    again: Again = lambda _: ()
