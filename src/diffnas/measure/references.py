"""The real images that samples are compared with."""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from diffnas.data import Data
from diffnas.errors import UserError
from diffnas.measure import features as extractors
from diffnas.names import OWN_SAMPLES
from diffnas.settings import EvaluateSettings

Images = npt.NDArray[np.uint8]

REFERENCES = 10_000
"""Reference images at most, spread evenly over the set."""

PART = 256
"""Images looked at at once."""

NEAREST_SIDE = 32
"""Larger images are shrunk to this side before the nearest seen one is looked for."""


@dataclass(frozen=True)
class Picked:
    """Some of a set's images, left where they are: large ones would fill the memory."""

    images: Images
    rows: npt.NDArray[Any]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: Any) -> Images:
        return self.images[self.rows[key]]

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, H, W)."""
        return len(self), *self.images.shape[1:]

    @cached_property
    def content(self) -> str:
        """A hash of all of them, which is to be read once only."""
        found = hashlib.sha256()
        for part in parts(self):
            found.update(part.data)
        return found.hexdigest()


def parts(images: Images | Picked) -> Iterator[Images]:
    """All of them in their order, at most :data:`PART` at a time."""
    for start in range(0, len(images), PART):
        yield np.ascontiguousarray(images[start : start + PART])


def check_samples(source: str, shape: tuple[int, ...], settings: EvaluateSettings) -> None:
    """Refuse what can be refused before the images of that source are loaded in that (C, H, W).

    Raises:
        UserError: samples are too few for the features, or these need a package that is not there
            or are of other images.
    """
    if settings.features == "digits" and source != "digits" and shape[0] != 1:
        raise UserError(
            "evaluate.features = digits: they are of grey images, and these are in colour; use "
            "patches, inception or auto"
        )
    used = extractors.features(features_of(source, settings))
    if settings.samples < used.least_images:
        raise UserError(
            f"evaluate.samples = {settings.samples}: too few for {used.words}, which need "
            f"{used.least_images}; raise it"
        )


def check_counts(data: Data, settings: EvaluateSettings) -> None:
    """Refuse counts at which a Fréchet distance is noise: no more images than features.

    Raises:
        UserError: samples, held-out or seen images are too few, or features of other images.
    """
    check_samples(data.name, data.images.shape[1:], settings)
    check_sides(data.name, settings, len(data.seen), len(data.held_out))


def check_sides(source: str, settings: EvaluateSettings, seen: int, held_out: int) -> None:
    """Refuse so few images of that source on either side of the split; needs none of them.

    Raises:
        UserError: naming how many would do.
    """
    used = extractors.features(features_of(source, settings))
    least, words = used.least_images, used.words
    total = seen + held_out
    share = math.ceil(100 * least / max(1, total)) / 100  # of all, that a side needs
    for does, count, remedy in (
        ("holds out", held_out, f"raise it to {share:g}"),
        ("leaves", seen, f"lower it to {1 - share:g}"),
    ):
        if count < least:
            wanted = math.ceil(least * total / max(1, count))
            more = f"set data.limit={wanted}" if source == OWN_SAMPLES else f"give {wanted} images"
            # Classes are shared out in whole images: a share may give less than it says.
            helps = 2 * share <= 1 and share > round(count / total, 2)
            raise UserError(
                f"data.held_out {does} {count} of the {total} images of {source}: too few for "
                f"{words}, which need {least}; {remedy if helps else f'{more} or more'}"
            )


def references(data: Data) -> tuple[Picked, Picked]:
    """Held-out and seen images, at most :data:`REFERENCES` of each."""
    return (
        Picked(data.images, spread(data.held_out, REFERENCES)),
        Picked(data.images, spread(data.seen, REFERENCES)),
    )


def features_of(source: str, settings: EvaluateSettings) -> str:
    """The name of the features for images of that source, resolved where it is 'auto'."""
    chosen = settings.features
    return extractors.auto_features(source) if chosen == "auto" else chosen


def spread(items: npt.NDArray[Any], most: int) -> npt.NDArray[Any]:
    """At most so many items, spread evenly."""
    if len(items) <= most:
        return items
    return items[np.linspace(0, len(items) - 1, most).round().astype(int)]


def shrink(images: Images | Picked) -> Images:
    """Images of at most :data:`NEAREST_SIDE` a side, by averaging."""
    if max(images.shape[2:]) <= NEAREST_SIDE:
        return images[:]
    height, width = (min(side, NEAREST_SIDE) for side in images.shape[2:])
    shrunk = [
        F.adaptive_avg_pool2d(torch.from_numpy(part).float(), (height, width))
        for part in parts(images)
    ]
    return torch.cat(shrunk).round().to(torch.uint8).numpy()
