"""Coloured shapes of 16 by 16 pixels, as a program draws them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

SIDE = 16
FINER = 8  # drawn this much larger, then reduced: edges are smooth

Colour = tuple[int, int, int]

SHAPES = ("circle", "square", "triangle", "cross")
COLOURS: dict[str, Colour] = {
    "red": (220, 50, 40),
    "green": (40, 170, 70),
    "blue": (50, 80, 220),
    "yellow": (240, 210, 50),
}
BACKGROUNDS: dict[str, Colour] = {
    "black": (20, 20, 20),
    "grey": (128, 128, 128),
    "white": (240, 240, 240),
}
RADII = {"small": 3.0, "large": 5.0}
"""Half the width of a shape in pixels."""


@dataclass(frozen=True)
class Words:
    """What a caption says of an image."""

    size: str
    colour: str
    shape: str
    background: str

    @property
    def caption(self) -> str:
        """In English."""
        return f"a {self.size} {self.colour} {self.shape} on {self.background}"

    @property
    def kind(self) -> str:
        """What a model of classes is told."""
        return f"{self.colour} {self.shape}"


WORDS = tuple(Words(*each) for each in product(RADII, COLOURS, SHAPES, BACKGROUNDS))
"""All captions."""


def coverage(shape: str, radius: float, x: float, y: float) -> npt.NDArray[np.float32]:
    """How much of each pixel the shape covers (SIDE, SIDE); ``x``, ``y``: its centre."""
    mask = Image.new("L", (SIDE * FINER, SIDE * FINER))
    draw = ImageDraw.Draw(mask)
    left, top = (x - radius) * FINER, (y - radius) * FINER
    right, bottom = (x + radius) * FINER - 1, (y + radius) * FINER - 1
    third = 2 * radius * FINER / 3
    match shape:
        case "circle":
            draw.ellipse((left, top, right, bottom), fill=255)
        case "square":
            draw.rectangle((left, top, right, bottom), fill=255)
        case "triangle":
            draw.polygon([(left, bottom), (right, bottom), (x * FINER, top)], fill=255)
        case "cross":
            draw.rectangle((left + third, top, right - third, bottom), fill=255)
            draw.rectangle((left, top + third, right, bottom - third), fill=255)
        case _:
            raise ValueError(f"no shape {shape!r}; known are {', '.join(SHAPES)}")
    return np.asarray(mask.reduce(FINER)).astype(np.float32) / np.float32(255)


def painted(covered: npt.NDArray[np.float32], words: Words) -> npt.NDArray[np.float32]:
    """The image (..., SIDE, SIDE, 3), 0 to 255, of what is covered (..., SIDE, SIDE)."""
    front = np.array(COLOURS[words.colour], np.float32)
    back = np.array(BACKGROUNDS[words.background], np.float32)
    return back + covered[..., None] * (front - back)


def drawn(words: Words, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """The image (SIDE, SIDE, 3) with the shape anywhere, wholly inside."""
    radius = RADII[words.size]
    x, y = rng.uniform(radius, SIDE - radius, 2)
    return painted(coverage(words.shape, radius, x, y), words).round().astype(np.uint8)
