"""Image data sets of the Hugging Face Hub, or saved by `datasets`, read through that library."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from PIL import Image

from diffnas.data.captions import COLUMN
from diffnas.data.folder import image_files, pick
from diffnas.data.loaded import Asked, Loaded
from diffnas.data.streamed import streamed
from diffnas.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset


def load_hub(
    source: str,
    asked: Asked,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    streaming: bool = False,
) -> Loaded:
    """Load 'owner/name', 'owner/name:configuration' or a local folder written by `datasets`.

    Classes come if a column is named for them. Only the training split is used, and split again.
    With ``streaming`` no more is fetched than the rows of the limit take.

    Raises:
        UserError: it cannot be loaded, or has not the columns that are needed.
    """
    limit = asked.limit
    if streaming and limit is None:
        raise UserError("data.streaming: needs data.limit; say how many images to fetch")
    table = _open(source, limit, asked.cache) if streaming else _open(source)
    column = _image_column(table, image_column, source)
    if label_column is not None and label_column not in table.column_names:
        raise _no_column("label_column", label_column, table, source)
    # Before any row is left out: a word has its number in the whole column.
    labels = None
    if label_column is not None:
        labels = _labels(table[label_column], label_column, whole=not streaming)
    texts = _captions(table, asked.caption_column or COLUMN, source) if asked.captioned else None
    picked = pick(len(table), limit)  # of a stream, all of them
    table = table.select(picked)
    pictures = _with_images(table.select_columns([column]), column, source)
    facts = repr((source, table._fingerprint, column, asked.size, asked.channels))

    def read(index: int) -> Image.Image:
        image: Image.Image = pictures[index][column]
        return image

    key = hashlib.sha256(facts.encode()).hexdigest()[:24]
    found, again = asked.decoded(len(table), read, key, None if labels is None else labels[picked])
    if not len(found.kept):
        raise UserError(
            f"data.image_column: no image of column {column!r} in {source!r} can be read; "
            "name a column of images"
        )
    rows = picked[found.kept]
    return Loaded(
        found.images,
        None if labels is None else labels[rows],
        None if texts is None else tuple(texts[row] for row in rows),
        skipped=len(table) - len(rows),
        again=again,
    )


def is_saved_dataset(folder: Path) -> bool:
    """Whether `datasets` wrote this folder, or it holds tables instead of image files."""
    if any((folder / mark).exists() for mark in ("dataset_dict.json", "state.json")):
        return True
    return any(folder.rglob("*.parquet")) and not image_files(folder)


def _open(source: str, streamed_rows: int | None = None, cache: Path | None = None) -> Dataset:
    """The training split; or, where so many rows are asked for, as many of its stream."""
    import datasets
    import pyarrow

    from diffnas.http_error import HTTPError

    folder, streaming = Path(source).expanduser(), streamed_rows is not None
    try:
        if (folder / "state.json").exists() or (folder / "dataset_dict.json").exists():
            found: Any = datasets.load_from_disk(str(folder))
            streaming = False  # it is here already
        elif folder.is_dir():
            found = datasets.load_dataset(str(folder), streaming=streaming)
        else:
            name, _, configuration = source.partition(":")
            found = datasets.load_dataset(name, configuration or None, streaming=streaming)
        if isinstance(found, dict):
            found = found["train"] if "train" in found else next(iter(found.values()))
        if streaming and streamed_rows is not None:
            found = streamed(found, source, streamed_rows, cache)
    except (
        datasets.exceptions.DatasetsError,
        pyarrow.ArrowException,
        yaml.YAMLError,
        zipfile.BadZipFile,
        EOFError,
        ImportError,  # no package for this kind of file
        LookupError,
        HTTPError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        if folder.is_dir():
            raise UserError(
                f"data: the folder {source!r} holds a data set that cannot be read ({reason}); "
                "check that its files are whole, or give a folder of images"
            ) from error
        raise UserError(
            f"data: {source!r} is no folder here, and loading it as a Hub data set failed "
            f"({reason}); check the name and the connection, or give a folder of images"
        ) from error
    return found


def _image_column(table: Dataset, named: str | None, source: str) -> str:
    if named is not None:
        if named not in table.column_names:
            raise _no_column("image_column", named, table, source)
        return named
    found = [name for name, kind in table.features.items() if type(kind).__name__ == "Image"]
    if len(found) != 1:
        count = "several columns" if found else "no column"
        raise UserError(
            f"data.image_column: {source!r} has {count} of images; "
            f"name one of {', '.join(found or table.column_names)}"
        )
    return found[0]


def _with_images(table: Dataset, column: str, source: str) -> Dataset:
    """See that the column gives pictures, also where it holds paths or encoded bytes."""
    import datasets
    import pyarrow

    if isinstance(table.features[column], datasets.Image):
        return table
    try:
        return table.cast_column(column, datasets.Image())
    except (pyarrow.ArrowException, TypeError, ValueError) as error:
        raise UserError(
            f"data.image_column: column {column!r} of {source!r} holds no images; name another"
        ) from error


def _captions(table: Dataset, column: str, source: str) -> list[str]:
    if column not in table.column_names:
        raise _no_column("caption_column", column, table, source)
    texts = list(table[column])
    if not all(isinstance(text, str) for text in texts):
        raise UserError(
            f"data.caption_column: {column!r} of {source!r} is not one text an image; name another"
        )
    return texts


def _labels(values: Any, column: str, *, whole: bool) -> np.ndarray:
    """Whole numbers as they are, anything else numbered in sorted order; int64 (N,).

    Only of a ``whole`` column are all words known.
    """
    array = np.asarray(values)
    fractions = np.issubdtype(array.dtype, np.floating)
    if array.ndim != 1 or array.dtype == object or (fractions and not np.isfinite(array).all()):
        raise UserError(
            f"data.label_column: {column!r} is not one value an image; name another column"
        )
    if fractions and (array == array.round()).all():
        array = array.astype(np.int64)  # as pandas keeps whole numbers once a gap was among them
    if not np.issubdtype(array.dtype, np.integer):
        if not whole:
            raise UserError(
                f"data.label_column: {column!r} holds words, whose numbers a stream does not tell; "
                "name a column of numbers, or leave data.streaming out"
            )
        array = np.unique(array, return_inverse=True)[1]
    return array.astype(np.int64)


def _no_column(setting: str, named: str, table: Dataset, source: str) -> UserError:
    columns = ", ".join(table.column_names)
    return UserError(
        f"data.{setting}: {source!r} has no column {named!r}; its columns are {columns}"
    )
