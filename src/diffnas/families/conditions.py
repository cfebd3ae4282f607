"""What a model is told of the images that it is to make: classes, or texts as encoders see them.

A condition is rows of tensors by name, from which a family's ``inputs`` makes what its denoiser
takes. Some rows are not told but shown, of an image with a hole; those are never left out.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from diffnas.data import Data
from diffnas.data.meant import check_classes
from diffnas.errors import UserError
from diffnas.rng import generator

Condition = dict[str, Tensor]
"""Tensors (B, ...) by name; empty for models that are not told anything."""

Shows = Callable[[npt.NDArray[np.int64]], Condition]
"""Indices of images (B,) -> what they are to show."""

Encode = Callable[[Any, list[str], bool], Condition]
"""(pipeline, captions, negative) -> what its text encoders make of the captions; if negative, of
the prompt that it takes when it is given none."""

CLASSES = "class_labels"
"""The name of classes, int64 (B,)."""

GUIDANCE = "guidance"
"""The name of the scale (B,) that a model is told which was distilled with its guidance in it."""


MASK = "mask"
"""The name of where an image has its hole (B, 1, h, w): 1 there, else 0."""

MASKED = "masked_image"
"""The name of the image with the hole, as pixels or latents (B, c, h, w)."""


def of_classes(
    labels: npt.NDArray[np.int64] | None, rows: npt.NDArray[np.integer[Any]], count: int
) -> Condition:
    """The classes of these rows, of a model that knows ``count``.

    Raises:
        UserError: there are none, or one is out of range.
    """
    chosen = None if labels is None else labels[rows]
    check_classes(chosen, count)
    assert chosen is not None
    return {CLASSES: torch.from_numpy(chosen)}


def of_captions(
    encode: Callable[[list[str]], Condition], data: Data, rows: npt.NDArray[np.integer[Any]]
) -> Condition:
    """The captions of these rows, encoded beforehand or now.

    Raises:
        UserError: the data have no captions.
    """
    if data.captions is None:
        raise UserError(
            "data: no captions, but the model takes text; give images with a metadata.jsonl, or "
            "set data.caption_column"
        )
    if data.embeddings is not None:
        return tensors_of(data.embeddings.rows, data.embeddings.of[rows])
    return encode([data.captions[row] for row in rows])


def own_guidance(pipeline: Any) -> float:
    """The scale of a pipeline that is asked for none; 1, no guidance, where it takes none."""
    # A skeleton's pipeline only knows of which class it would be.
    kind = getattr(pipeline, "kind", type(pipeline))
    scale = inspect.signature(kind.__call__).parameters.get("guidance_scale")
    # In diffusers less than 1 is no guidance.
    return 1.0 if scale is None else max(1.0, float(scale.default))


def through(encode: Encode) -> dict[str, Any]:
    """The fields ``captions`` and ``nothing`` of a family with such an encoding; float32."""

    @torch.no_grad()
    def made(pipeline: Any, texts: list[str], negative: bool) -> Condition:
        return {name: each.float() for name, each in encode(pipeline, texts, negative).items()}

    return {
        "captions": lambda pipeline, texts: made(pipeline, texts, False),
        "nothing": lambda pipeline: made(pipeline, [""], True),
    }


def tensors_of(
    kept: Mapping[str, npt.NDArray[Any]], rows: npt.NDArray[np.integer[Any]]
) -> Condition:
    """Those rows of what was encoded beforehand, in float32."""
    return {
        name: torch.from_numpy(np.ascontiguousarray(each[rows])).float()
        for name, each in kept.items()
    }


def random_classes(
    count: int, classes: int, seed: int, stage: str = "sample classes"
) -> npt.NDArray[np.int64]:
    """Classes (count,), each as likely as any other; ``stage``: what they are drawn for."""
    return torch.randint(classes, (count,), generator=generator(seed, stage, 0)).numpy()


def replaced(condition: Condition, nothing: Condition, where: Tensor) -> Condition:
    """The condition with ``nothing`` (1, ...) in the rows that ``where`` (B,) marks.

    What ``nothing`` does not have stays.
    """
    return {
        name: torch.where(
            where.to(each.device).view(-1, *[1] * (each.ndim - 1)),
            nothing[name].to(each) if name in nothing else each,
            each,
        )
        for name, each in condition.items()
    }


def both(condition: Condition, nothing: Condition) -> Condition:
    """The condition and below it, for as many rows, ``nothing`` (1, ...).

    What ``nothing`` does not have stands there twice.
    """
    below = replaced(condition, nothing, torch.tensor(True))
    return {name: torch.cat([each, below[name]]) for name, each in condition.items()}
