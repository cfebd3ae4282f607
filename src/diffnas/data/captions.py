"""Captions of a folder's pictures, in the form of Hugging Face's imagefolder.

``metadata.jsonl`` has an object a line: ``{"file_name": "a/1.png", "text": "a red square"}``; paths
are relative to its folder.
"""

from __future__ import annotations

import json
import os
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from diffnas.data.walk import files_below
from diffnas.errors import UserError

FILE = "metadata.jsonl"
COLUMN = "text"


def read_captions(folder: Path, files: Sequence[Path], column: str | None) -> list[str]:
    """The caption of each of these files, whose paths are relative to ``folder``.

    Raises:
        UserError: there is no metadata.jsonl, it is damaged, or a file is not in it, or twice.
    """
    name = column or COLUMN
    tables = sorted(file for file in files_below(folder) if file.name == FILE)
    if not tables:
        raise UserError(
            f"data: no captions in {str(folder)!r}, but the model takes text; add a {FILE} with "
            f'lines such as {{"file_name": "{files[0].as_posix()}", "{name}": "..."}}'
        )
    wanted, found = {_one_way(file): file for file in files}, dict[Path, str]()
    for table in tables:
        for number, row in _rows(folder / table):
            file = wanted.get(_one_way(table.parent / row["file_name"]))
            if file is None:
                continue
            where = f"{folder / table}, line {number}"
            if not isinstance(row.get(name), str):
                raise UserError(
                    f"{where}: no text {name!r}; give the caption there, or name its column by "
                    "data.caption_column"
                )
            if file in found:
                raise UserError(f"{where}: a second caption of {file.as_posix()}; keep one")
            found[file] = row[name]
    missing = [file.as_posix() for file in files if file not in found]
    if missing:
        raise UserError(
            f"data: {len(missing)} of {len(files)} images have no caption in {FILE}, "
            f"e.g. {missing[0]}; add a line for each"
        )
    return [found[file] for file in files]


def _one_way(file: Path) -> str:
    """A path that may be written in several ways, in one: with ``..``, accents apart or not.

    Apart they are in names from Apple's file systems, of one piece where people type them.
    """
    return unicodedata.normalize("NFC", os.path.normpath(file))


def _rows(table: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The lines that name a file, with their numbers."""
    try:
        lines = table.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise UserError(f"{table}: {reason}; make it readable") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            raise UserError(f"{table}, line {number}: not JSON; give an object a line") from None
        if not isinstance(row, dict) or not isinstance(row.get("file_name"), str):
            raise UserError(f"{table}, line {number}: no file_name; name the image's file there")
        yield number, row
