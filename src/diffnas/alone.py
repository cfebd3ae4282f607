"""Whether a folder can be worked in: two commands at once would overwrite each other's files."""

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from diffnas.errors import UserError


@contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """While active, no other process of this user and machine works in the folder.

    The system lets go of it however the process ends. A folder that is there is also held itself,
    against processes whose temporary files are elsewhere.

    Raises:
        UserError: one does.
    """
    # Not in the folder itself, which is not there before there is something to keep.
    # By number: not every user of a container has a name.
    whose = f"{os.getuid()} {out.resolve()}"
    name = f"diffnas-{hashlib.sha256(whose.encode()).hexdigest()[:16]}.lock"
    lock = FileLock(Path(tempfile.gettempdir()) / name, timeout=0)
    try:
        held = lock.acquire()
    except Timeout:
        raise _busy(out) from None
    with held, _held(out):
        yield


@contextmanager
def _held(out: Path) -> Iterator[None]:
    """Hold the folder itself, if it is there and its file system knows of locks."""
    if not out.is_dir():
        yield
        return
    folder = os.open(out, os.O_RDONLY)
    try:
        with suppress(OSError):
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise _busy(out) from None
        yield
    finally:
        os.close(folder)


def _busy(out: Path) -> UserError:
    return UserError(
        f"--out {out}: another diffnas is at work in it; wait for it, or give another folder"
    )


def check_folder(flag: str, folder: Path) -> None:
    """Refuse, before hours of work, a folder that cannot be written; makes nothing.

    Raises:
        UserError: it is a file, or it or its nearest existing parent is not writable, or its name
            is none that safetensors could open.
    """
    try:
        str(folder.absolute()).encode()
    except UnicodeEncodeError:
        raise UserError(f"{flag} {folder}: its name is not UTF-8; name another folder") from None
    existing = folder
    if folder.is_symlink() and not folder.exists():
        raise UserError(f"{flag} {folder}: is a link to {folder.readlink()}, which is not there")
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise UserError(f"{flag} {folder}: {existing} is a file; name a folder")
    if not os.access(existing, os.R_OK | os.W_OK | os.X_OK):
        raise UserError(
            f"{flag} {folder}: {existing} cannot be read and written; choose another folder"
        )
