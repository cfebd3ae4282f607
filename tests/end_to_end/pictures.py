"""Folders of pictures as people have them, made on the spot."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

ORIENTATION = 274
TURNED_LEFT = 8


def pictures(folder: Path, count: int = 200, folders: Sequence[str] = (".",)) -> Path:
    """``count`` small colour pictures, spread over the folders: a disc on a coloured ground."""
    for index in range(count):
        inner = folder / folders[index % len(folders)]
        inner.mkdir(parents=True, exist_ok=True)
        picture(index).save(inner / f"{index:03}.png")
    return folder


def mixed_pictures(folder: Path) -> Path:
    """200 readable pictures of many formats, sizes and modes, nested; one that is damaged."""
    pictures(folder, 188, (".", "summer", "summer/sea", "winter"))
    for index, (ending, options) in enumerate(
        [("jpg", {}), ("JPEG", {}), ("bmp", {}), ("webp", {}), ("gif", {}), ("tiff", {})]
    ):
        wide = picture(index, (30, 18 + index))
        wide.save(folder / "winter" / f"wide-{index}.{ending}", **options)
    for mode in ("L", "LA", "P", "RGBA", "1"):
        picture(7, (21, 33)).convert(mode).save(folder / "summer" / f"mode-{mode}.png")
    exif = Image.Exif()
    exif[ORIENTATION] = TURNED_LEFT
    picture(9, (40, 24)).save(folder / "turned.jpg", exif=exif)
    whole = (folder / "winter" / "wide-0.jpg").read_bytes()
    (folder / "damaged.jpg").write_bytes(whole[: len(whole) // 4])
    (folder / "notes.txt").write_text("not a picture")
    return folder


def picture(seed: int, size: tuple[int, int] = (16, 16)) -> Image.Image:
    """A disc on a coloured ground, places and colours by the seed."""
    random = np.random.default_rng(seed)
    width, height = size
    y, x = np.mgrid[:height, :width]
    middle, radius = random.uniform(0.3, 0.7, 2), random.uniform(0.1, 0.4)
    inside = (x / width - middle[0]) ** 2 + (y / height - middle[1]) ** 2 < radius**2
    ground, disc = random.integers(0, 256, (2, 3))
    return Image.fromarray(np.where(inside[..., None], disc, ground).astype(np.uint8))


def captioned(folder: Path, count: int = 200, *, wide: bool = False) -> Path:
    """:func:`pictures` with a caption each, of seven different ones; every other may be wide."""
    pictures(folder, count)
    for index in range(1, count if wide else 0, 2):
        picture(index, (32, 18)).save(folder / f"{index:03}.png")
    lines = (
        json.dumps({"file_name": f"{index:03}.png", "text": f"a disc of kind {index % 7}"})
        for index in range(count)
    )
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder
