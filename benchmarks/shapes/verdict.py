"""Does an image show what was asked for? The nearest of all drawings says what it shows."""

from __future__ import annotations

from dataclasses import fields
from functools import cache

import numpy as np
import numpy.typing as npt

from shapes.drawing import RADII, SIDE, WORDS, Words, coverage, painted

STEP = 0.5
"""Pixels from one place of a drawing to the next."""


@cache
def drawings() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """All of them (N, SIDE * SIDE * 3), and which of WORDS each shows (N,)."""
    images, shown = [], []
    for index, words in enumerate(WORDS):
        masks = _masks(words.shape, words.size)
        images.append(painted(masks, words).reshape(len(masks), -1))
        shown.append(np.full(len(masks), index))
    return np.concatenate(images), np.concatenate(shown)


@cache
def _masks(shape: str, size: str) -> npt.NDArray[np.float32]:
    radius = RADII[size]
    places = np.arange(radius, SIDE - radius + STEP / 2, STEP)
    return np.stack([coverage(shape, radius, x, y) for y in places for x in places])


def seen(images: npt.NDArray[np.uint8]) -> tuple[list[Words], npt.NDArray[np.float64]]:
    """What images (B, 3, SIDE, SIDE) show, and their distance (B,) from such a drawing.

    The distance is the root of the mean squared difference of a channel's value, 0 to 255.
    """
    known, shown = drawings()
    given = images.transpose(0, 2, 3, 1).reshape(len(images), -1).astype(np.float32)
    squares = (known**2).sum(1) - 2 * given @ known.T + (given**2).sum(1)[:, None]
    nearest = squares.argmin(1)
    least = squares[np.arange(len(given)), nearest].clip(0) / given.shape[1]
    return [WORDS[index] for index in shown[nearest]], np.sqrt(least).astype(np.float64)


def shares_right(asked: list[Words], images: npt.NDArray[np.uint8]) -> dict[str, float]:
    """Shares of images that show what was asked: each word, and all of them; and the distance."""
    found, distance = seen(images)
    pairs = list(zip(asked, found, strict=True))
    right = {
        field.name: np.array([getattr(a, field.name) == getattr(b, field.name) for a, b in pairs])
        for field in fields(Words)
    }
    whole = np.logical_and.reduce(list(right.values()))
    kind = right["colour"] & right["shape"]
    shares = {name: float(each.mean()) for name, each in right.items()}
    return {
        **shares,
        "kind": float(kind.mean()),
        "all": float(whole.mean()),
        "distance": float(distance.mean()),
    }
