"""The files below a folder, links to other folders followed."""

import os
from collections.abc import Iterator
from pathlib import Path


def files_below(folder: Path) -> Iterator[Path]:
    """Paths relative to the folder of all files that are not hidden, in any order.

    A link that leads back to a folder that it lies in is not followed.
    """
    inside = {str(folder): {os.path.realpath(folder)}}  # by folder: it and those it lies in
    for place, folders, files in os.walk(folder, followlinks=True):
        above = inside.pop(place)
        own = {name: os.path.realpath(os.path.join(place, name)) for name in folders}
        folders[:] = [n for n in folders if not n.startswith(".") and own[n] not in above]
        inside |= {os.path.join(place, name): above | {own[name]} for name in folders}
        here = Path(place).relative_to(folder)
        yield from (here / name for name in files if not name.startswith("."))
