"""Images side by side in one picture."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Images = npt.NDArray[np.uint8]

GAP = 2
"""Pixels between images, and around them."""

LEAST_SIDE = 32
"""Smaller images are enlarged, pixel by pixel, until their shorter side has this many."""

MARGIN = 16
"""Pixels between the two sides."""

BACKGROUND, INK = (255, 255, 255), (40, 40, 40)


def grid(images: Images, columns: int | None = None, scale: int | None = None) -> Image.Image:
    """One RGB picture of uint8 images (N, 1 or 3, H, W), row by row.

    ``columns``: as many as make the picture about square when None; ``scale``: how many times
    larger to draw each pixel, by :data:`LEAST_SIDE` when None.

    Raises:
        ValueError: there are no images, or they have neither 1 nor 3 channels.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3) or not len(images):
        raise ValueError(f"images of shape {images.shape}: need (N, 1 or 3, H, W) and N > 0")
    count, _, height, width = images.shape
    columns = min(count, columns or math.ceil(math.sqrt(count * height / width)))
    scale = scale or math.ceil(LEAST_SIDE / min(height, width))
    across, down = width * scale + GAP, height * scale + GAP
    rows = math.ceil(count / columns)
    picture = Image.new("RGB", (columns * across + GAP, rows * down + GAP), BACKGROUND)
    large = images.repeat(scale, axis=2).repeat(scale, axis=3)
    for index, image in enumerate(np.broadcast_to(large, (count, 3, *large.shape[2:]))):
        row, column = divmod(index, columns)
        tile = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
        picture.paste(tile, (GAP + column * across, GAP + row * down))
    return picture


def side_by_side(
    left: Images, right: Images, titles: Sequence[str] = ("teacher", "student")
) -> Image.Image:
    """Two grids under their titles; images of one seed are at the same place in both.

    Raises:
        ValueError: as :func:`grid`.
    """
    font = ImageFont.load_default(size=14)
    sides = [grid(images) for images in (left, right)]
    boxes = [font.getbbox(title) for title in titles]
    top = math.ceil(max(box[3] for box in boxes)) + 2 * GAP
    widths = [
        max(side.width, math.ceil(box[2]) + 2 * GAP) for side, box in zip(sides, boxes, strict=True)
    ]
    size = (sum(widths) + MARGIN, top + max(side.height for side in sides))
    picture = Image.new("RGB", size, BACKGROUND)
    draw = ImageDraw.Draw(picture)
    x = 0
    for side, title, width in zip(sides, titles, widths, strict=True):
        draw.text((x + GAP, GAP), title, fill=INK, font=font)
        picture.paste(side, (x, top))
        x += width + MARGIN
    return picture
