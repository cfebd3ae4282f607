"""The built-in data: scikit-learn's copy of the UCI handwritten digits.

1 797 grey images of 8 by 8 pixels in ten classes; a pixel's value, 0..16, counts the ink in a
cell of 4 by 4.
They ship inside scikit-learn's wheel, so nothing is downloaded.
"""

from __future__ import annotations

import numpy as np
import torch

from diffnas.data.loaded import Loaded

SIDE = 8
LEVELS = 16  # the greatest pixel value in the source


WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def load_digits(size: tuple[int, int] = (SIDE, SIDE), channels: int = 1) -> Loaded:
    """All images, (1797, channels, H, W), with their classes; the captions are words."""
    from sklearn.datasets import load_digits as source

    bunch = source()
    images = np.rint(bunch.images * (255 / LEVELS)).astype(np.uint8)[:, None]
    if size != (SIDE, SIDE):
        images = _resized(images, size)
    labels = bunch.target.astype(np.int64)
    captions = tuple(WORDS[label] for label in labels)
    return Loaded(np.repeat(images, channels, axis=1), labels, captions)


def _resized(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bicubic, antialiased when shrinking; uint8 (N, 1, H, W) in and out."""
    resized = torch.nn.functional.interpolate(
        torch.from_numpy(images).float(), size, mode="bicubic", antialias=True
    )
    return resized.round().clamp(0, 255).to(torch.uint8).numpy()
