"""A folder of pictures, however nested and mixed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image

from diffnas.data.captions import read_captions
from diffnas.data.loaded import Asked, Loaded
from diffnas.data.walk import files_below, stamps
from diffnas.errors import UserError


def load_folder(folder: Path, asked: Asked, *, labelled: bool = False) -> Loaded:
    """A folder's pictures in the order of their paths, with classes or captions if asked for.

    Raises:
        UserError: there are none, or none can be read; or what was asked for is not there.
    """
    files = image_files(folder)
    if not files:
        raise UserError(f"data: no images in {str(folder)!r}; give a folder that holds some")
    # Before any file is left out: a class has its number in the whole folder.
    numbers = _class_numbers(folder, files) if labelled else None
    files = [files[i] for i in pick(len(files), asked.limit)]
    captions = read_captions(folder, files, asked.caption_column) if asked.captioned else None

    def read(index: int) -> Image.Image:
        return _open(folder / files[index])

    key = _key(folder, files, asked.size, asked.channels)
    labels = None
    if numbers is not None:
        labels = np.array([numbers[file.parts[0]] for file in files], np.int64)
    groups = _numbers([str(file.parent) for file in files])
    found, again = asked.decoded(len(files), read, key, labels, groups)
    if not len(found.kept):
        raise UserError(
            f"data: none of the {len(files)} images in {str(folder)!r} can be read; "
            "check that they are intact"
        )
    return Loaded(
        found.images,
        None if labels is None else labels[found.kept],
        None if captions is None else tuple(captions[i] for i in found.kept),
        groups[found.kept],
        len(files) - len(found.kept),
        again,
    )


def image_files(folder: Path) -> list[Path]:
    """Paths relative to the folder of all files that Pillow knows by suffix, sorted."""
    Image.init()
    suffixes = {s for s, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    found = (file for file in files_below(folder) if (folder / file).is_file())
    return sorted((f for f in found if f.suffix.lower() in suffixes), key=Path.as_posix)


def pick(count: int, limit: int | None) -> np.ndarray:
    """Indices of at most `limit` of `count` things, spread at random but always the same."""
    if limit is None or limit >= count:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).permutation(count)[:limit])


def _open(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.load()
        return image


def _numbers(names: list[str]) -> np.ndarray:
    """Each name's place among the sorted names, int64 (N,)."""
    return np.unique(names, return_inverse=True)[1].astype(np.int64)


SPLITS = {"train", "test", "val", "valid", "validation"}
"""Folders of these names hold the classes of a part of a data set, and are none."""


def _class_numbers(folder: Path, files: list[Path]) -> dict[str, int]:
    """Top-level folders' numbers: their names, if these are numbers, else the places of these.

    Folders without an image have theirs too.
    """
    loose = [file for file in files if len(file.parts) == 1]
    if loose:
        raise UserError(
            f"data: {loose[0].name!r} lies in no class folder of {str(folder)!r}; "
            "labels are the names of the top-level folders, so move it into one"
        )
    names = (path.name for path in folder.iterdir() if path.is_dir())
    visible = sorted(name for name in names if not name.startswith("."))
    deeper = all(len(file.parts) > 2 for file in files)
    if deeper and (len(visible) == 1 or SPLITS.issuperset(visible)):
        raise UserError(
            f"data: {visible[0]!r} in {str(folder)!r} has folders of its own, and would be one "
            f"class; if these are the classes, give {str(folder / visible[0])!r}"
        )
    if all(name.isdecimal() for name in visible) and len(set(map(int, visible))) == len(visible):
        return {name: int(name) for name in visible}
    return {name: number for number, name in enumerate(visible)}


def _key(folder: Path, files: list[Path], size: tuple[int, int], channels: int) -> str:
    """Name of the decoded set: changes when a file is added, removed or changed."""
    text = repr((str(folder.resolve()), size, channels, stamps(folder, files)))
    return hashlib.sha256(text.encode()).hexdigest()[:24]
