"""Atomic files, and states of long work as safetensors."""

import glob
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from diffnas.errors import RunError, UserError, is_disk_full
from diffnas.refusing import first_sentence

STALE = 600.0
"""Seconds after which a file that nobody writes on was left behind by a killed process."""


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """``write`` fills a temporary sibling that then takes the path's place, or nothing changes.

    Raises:
        RunError: the disk is full.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        os.close(handle)
        temporary = Path(name)
        write(temporary)
        with temporary.open("r+b") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        if is_disk_full(error):
            raise disk_full(path) from None
        raise
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def check_free(folder: Path, marker: str, what: str) -> None:
    """Raise UserError where :func:`new_folder` would: something but ``what`` is in the way."""
    if folder.is_file() or (
        folder.is_dir() and any(folder.iterdir()) and not (folder / marker).is_file()
    ):
        raise UserError(f"output {folder} exists and is not {what}; name another")


@contextmanager
def new_folder(folder: Path, marker: str, what: str, *, ours: bool = False) -> Iterator[Path]:
    """A folder to write to, which takes the path's place when the block ends well, or is removed.

    Only a folder with a file ``marker``, which says that it is ``what``, is ever replaced, or one
    that is known to be ``ours``.

    Raises:
        UserError: something else is in the way.
        RunError: the disk is full, or refuses.
    """
    folder = Path(folder).resolve()  # a link to a folder stays, and leads to the new one
    if not ours:
        check_free(folder, marker, what)
    new, old = (folder.with_name(f".{folder.name}.{name}") for name in ("new", "old"))
    shutil.rmtree(new, ignore_errors=True)  # an interrupted one's
    try:
        new.mkdir(parents=True)
        yield new
        if folder.is_dir() and not any(folder.iterdir()):
            _move_into(folder, new, last=marker)
            return
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
            folder.rename(old)  # a folder with content cannot be replaced in one step
        new.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        if is_disk_full(error):
            raise disk_full(folder) from None
        raise RunError(f"cannot write {what}, {folder}: {first_sentence(error)}") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _move_into(empty: Path, new: Path, last: str) -> None:
    """Fill an empty folder, in place of removing it: somebody's shell may stand in it."""
    for made in sorted(new.iterdir(), key=lambda each: each.name == last):
        made.rename(empty / made.name)


def disk_full(path: Path) -> RunError:
    """The error of a file or folder for which the disk has no room."""
    return RunError(f"{path}: no space left on the disk; free some and give the same command again")


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    # Names of files may hold bytes that are no UTF-8, which no page may fail for.
    data = text.encode("utf-8", "backslashreplace")
    write_atomically(path, lambda temporary: temporary.write_bytes(data))


def write_json(path: Path, values: Any) -> None:
    """Write a JSON file atomically, indented for people."""
    write_text(path, json.dumps(values, indent=2) + "\n")


def save_state(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, str]) -> None:
    """Write tensors and a few strings as one safetensors file, atomically."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomically(path, lambda temporary: save_file(contiguous, temporary, dict(meta)))


def load_state(path: Path) -> tuple[dict[str, Tensor], dict[str, str]] | None:
    """Tensors and strings of a state file; None if there is none or it is damaged.

    Raises:
        UserError: it may not be read.
    """
    check_readable(path)
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            # Copies: a tensor mapped from the file lies at other addresses than one of torch's, and
            # its results can differ in the last bit.
            return {name: file.get_tensor(name).clone() for name in names}, file.metadata() or {}
    except (FileNotFoundError, SafetensorError):
        return None


def check_readable(file: Path) -> None:
    """Raise UserError for a file that may not be read, of which safetensors says it is not there.

    It is not to be taken for a damaged one, and made again.
    """
    if file.exists() and not os.access(file, os.R_OK):
        raise UserError(f"{file}: not readable; check its permissions")


def within(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with a prefix, by the rest of their names."""
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }


def sweep(path: Path) -> None:
    """Remove what killed processes had written of this file; young ones may be in use."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        with suppress(FileNotFoundError):
            if time.time() - leftover.stat().st_mtime > STALE:
                leftover.unlink()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
