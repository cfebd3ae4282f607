"""How a run can end badly, told apart by exit status; memory or a disk that ran out."""

import errno

INTERRUPTED = 130
"""The exit status when the user stops the work."""

INTERRUPTION = "interrupted; a run goes on from here with the same command"
"""What is said then."""


class UserError(Exception):
    """A mistake the user can mend (exit status 2).

    The message is one line: the setting, its value, the remedy.
    """


class RunError(Exception):
    """The work itself failed: diverged training, a full disk, a lost device (exit status 1)."""


_NO_MEMORY = ("can't allocate memory", "cannot allocate memory", "out of memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device's memory, or the machine's, did not suffice."""
    # By name and text: importing torch to compare types would slow every mistake down, and on a CPU
    # torch raises a plain RuntimeError.
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in _NO_MEMORY)


def is_disk_full(error: BaseException) -> bool:
    """Whether that is why a file could not be written."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    # safetensors hands the system's errors on as text.
    return "No space left" in str(error) or "os error 28" in str(error)
