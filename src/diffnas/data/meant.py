"""What does not fit the data is refused: settings that mean nothing for them, classes."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from diffnas.errors import UserError
from diffnas.settings import DataSettings

HUB = {"split_by": "a Hub data set has no folders"}

FOLDER = {
    "image_column": "a folder of images has no columns",
    "streaming": "a folder of images is here already",
}

DIGITS = {
    "split_by": "the digits lie in no folders",
    "image_column": "the digits have no columns",
    "label_column": "the digits come with their classes",
    "caption_column": "the digits come with their captions",
    "streaming": "the digits are here already",
}

OWN_SAMPLES = {
    "split_by": "the teacher's own samples lie in no folders",
    "crop": "the teacher's own samples have one shape",
    "image_column": "the teacher's own samples have no columns",
    "label_column": "the classes of the teacher's own samples are drawn",
    "caption_column": "captions of the teacher's own samples come from data.prompts",
    "streaming": "the teacher's own samples are made here",
}


def check_meant(nothing: Mapping[str, str], given: Mapping[str, object]) -> None:
    """Refuse settings that mean nothing: ``nothing`` says of which names, and why.

    Raises:
        UserError: one of them is given, which is to say not its default.
    """
    for name, reason in nothing.items():
        value = given[name]
        if value != DataSettings.model_fields[name].default:
            word = "true" if value is True else value
            raise UserError(f"data.{name} = {word}: {reason}; leave it out, or give other data")


def check_label_column(named: str | None, classes: int | None) -> None:
    """Refuse to name classes for a model that takes none (``classes`` says how many it knows).

    Raises:
        UserError: they are named.
    """
    if named is not None and classes is None:
        raise UserError(f"data.label_column = {named}: the model takes no classes; leave it out")


def check_classes(labels: npt.NDArray[np.integer] | None, count: int) -> None:
    """Refuse classes that a model of ``count`` does not know; ``labels``: of images, if there.

    Raises:
        UserError: there are none, or one is out of range.
    """
    if labels is None:
        raise UserError(
            f"data: no classes, but the model takes one of {count}; set data.label_column (of a "
            "folder any name: its classes are its top-level folders)"
        )
    unknown = labels[(labels < 0) | (labels >= count)]
    if len(unknown):
        raise UserError(
            f"data: class {int(unknown[0])} is out of range; the model knows 0 to {count - 1}, so "
            "give images of these, numbered as in its training"
        )
