"""One command at a time in a run folder: two would overwrite each other's files."""

import getpass
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from diffnas.errors import UserError


@contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """While active, no other process of this user and machine works in the folder.

    The system lets go of it however the process ends.

    Raises:
        UserError: one does.
    """
    # Not in the folder itself, which is not there before there is something to keep.
    # By number where there are any: not every user of a container has a name.
    user = os.getuid() if hasattr(os, "getuid") else getpass.getuser()
    whose = f"{user} {out.resolve()}"
    name = f"diffnas-{hashlib.sha256(whose.encode()).hexdigest()[:16]}.lock"
    lock = FileLock(Path(tempfile.gettempdir()) / name, timeout=0)
    try:
        held = lock.acquire()
    except Timeout:
        raise UserError(
            f"--out {out}: another diffnas is at work in it; wait for it, or give another folder"
        ) from None
    with held:
        yield
