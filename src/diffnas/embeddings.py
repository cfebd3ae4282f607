"""What the text encoders make of the captions, computed once."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from diffnas.data import Data, Embeddings
from diffnas.data.filled import filled, rows_done
from diffnas.errors import UserError
from diffnas.families import Teacher
from diffnas.families.conditions import GUIDANCE, Condition, own_guidance
from diffnas.families.resting import awake
from diffnas.fingerprint import fingerprint, of_texts
from diffnas.progress import Progress

PART = 16
"""Captions encoded at once."""

HALF = 2.0**15
"""What is kept in half precision is smaller than this, half of what that can hold."""


def check_dropout(teacher: Teacher, share: float) -> None:
    """Raise UserError if conditions are to be left out of a model that cannot be told nothing."""
    if share and not teacher.guidable:
        raise UserError(
            f"data.condition_dropout = {share:g}: the model has no condition that stands for none, "
            "or was distilled and is never told it; leave it out"
        )


def with_embeddings(
    teacher: Teacher, data: Data, folder: Path, progress: Progress | None = None
) -> Data:
    """The data with the encoded captions, kept in ``folder``; as they are for a model without text.

    Equal captions are encoded once. All tensors of a caption are a row, in half precision, or in
    single where the encoders' states outgrow half: language models' do.

    Raises:
        RunError: the disk is full.
    """
    if not teacher.family.takes_texts or data.captions is None:
        return data
    texts, of = np.unique(_objects(data), return_inverse=True)
    nothing = teacher.nothing()
    example = teacher.told([texts[0]]) if nothing is None else nothing
    scale = [own_guidance(teacher.pipeline)] if GUIDANCE in example else []
    file = folder / "captions.npy"
    made_from = fingerprint(of_texts(teacher), list(texts), *scale)
    shape = (len(texts), sum(each[0].numel() for each in example.values()))

    def stored(kind: type[np.floating[Any]]) -> npt.NDArray[Any]:
        return filled(
            file,
            shape,
            kind,
            lambda first, last: _rows(teacher.told(list(texts[first:last])), kind),
            part=PART,
            made_from=made_from,
            stage="captions",
            progress=progress or Progress(),
        )

    # An earlier call may have seen that they outgrow half.
    single = rows_done(file, shape, np.float32, made_from) > 0
    kind: type[np.floating[Any]] = np.float32 if single else np.float16
    with awake(teacher.text_encoders, teacher.device):
        try:
            _rows(example, kind)  # which says so at once, as a rule
            kept = stored(kind)
        except OverflowError:
            kept = stored(kind := np.float32)
    none = {} if nothing is None else _by_name(_rows(nothing, kind), nothing)
    made = Embeddings(_by_name(kept, example), none, of.astype(np.int64))
    parts = [
        replace(part, embeddings=replace(made, of=np.searchsorted(texts, _objects(part))))
        for part in data.buckets
    ]
    return replace(data, embeddings=made, buckets=tuple(parts))


def _objects(data: Data) -> npt.NDArray[Any]:
    """Captions of any length."""
    return np.array(data.captions, dtype=object)


def _rows(condition: Condition, kind: type[np.floating[Any]]) -> npt.NDArray[Any]:
    """All tensors of each row, one behind the other; OverflowError if that is too small a kind."""
    rows = torch.cat([each.reshape(len(each), -1).float() for each in condition.values()], 1)
    if kind is np.float16 and rows.abs().max() >= HALF:
        raise OverflowError
    return rows.cpu().numpy().astype(kind)


def _by_name(rows: npt.NDArray[Any], example: Condition) -> dict[str, npt.NDArray[Any]]:
    """Views of each tensor."""
    sizes = [each[0].numel() for each in example.values()]
    parts = np.split(rows, np.cumsum(sizes)[:-1], axis=1)
    return {
        name: part.reshape(len(rows), *each.shape[1:])
        for (name, each), part in zip(example.items(), parts, strict=True)
    }
