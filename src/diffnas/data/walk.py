"""The files below a folder, links to other folders followed; and whether they have changed."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NoReturn

from diffnas.errors import UserError


def files_below(folder: Path) -> Iterator[Path]:
    """Paths relative to the folder of all files that are not hidden, in any order.

    A link that leads back to a folder that it lies in is not followed.

    Raises:
        UserError: a folder may not be read.
    """
    inside = {str(folder): {os.path.realpath(folder)}}  # by folder: it and those it lies in
    for place, folders, files in os.walk(folder, onerror=_refuse, followlinks=True):
        above = inside.pop(place)
        own = {name: os.path.realpath(os.path.join(place, name)) for name in folders}
        folders[:] = [n for n in folders if not n.startswith(".") and own[n] not in above]
        inside |= {os.path.join(place, name): above | {own[name]} for name in folders}
        here = Path(place).relative_to(folder)
        yield from (here / name for name in files if not name.startswith("."))


def stamps(folder: Path, files: Iterable[Path]) -> list[tuple[str, int, int]]:
    """Name, size and time of each of these files: they differ once a file is changed."""
    stats = [(file.as_posix(), (folder / file).stat()) for file in files]
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]


def _refuse(error: OSError) -> NoReturn:
    raise UserError(
        f"data: the folder {str(error.filename)!r} is not readable ({error.strerror}); check its "
        "permissions, or give a folder without it"
    ) from error
