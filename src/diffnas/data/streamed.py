"""As many rows of a large Hub data set as are wanted, without fetching all of it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffnas.checkpoint import new_folder
from diffnas.data.walk import files_below, stamps

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

BUFFER = 1000
"""Rows among which the next one is drawn; neighbours are often alike."""


def streamed(rows: IterableDataset, source: str, limit: int, cache: Path | None) -> Dataset:
    """``limit`` rows, drawn with a fixed seed; kept in ``cache``, from where they come next time.

    Those of a folder are drawn anew once its files have changed.

    Raises:
        RunError: the disk is full.
    """
    import datasets

    folder = None
    if cache is not None:
        facts = repr((source, limit, BUFFER, *_stamps(Path(source).expanduser())))
        folder = cache / f"streamed-{hashlib.sha256(facts.encode()).hexdigest()[:24]}"
        if (folder / "state.json").exists():
            return datasets.load_from_disk(str(folder))
    columns = [
        name for name, kind in (rows.features or {}).items() if isinstance(kind, datasets.Image)
    ]
    for column in columns:  # as the files have them: smaller, and nothing is decoded twice
        rows = rows.cast_column(column, datasets.Image(decode=False))
    drawn = rows.shuffle(seed=0, buffer_size=BUFFER).take(limit)
    found: Any = datasets.Dataset.from_generator(lambda: iter(drawn), features=drawn.features)
    for column in columns:
        found = found.cast_column(column, datasets.Image())
    if folder is not None:
        with new_folder(folder, "state.json", "a data set") as new:
            found.save_to_disk(str(new))
    return found


def _stamps(folder: Path) -> list[tuple[str, int, int]]:
    """Those of a folder's files; none of what is no folder, but a data set of the Hub."""
    if not folder.is_dir():
        return []
    return stamps(folder, sorted(f for f in files_below(folder) if (folder / f).is_file()))
