"""The two ways a run can end badly, told apart by the exit status they cause."""


class UserError(Exception):
    """A mistake the user can mend (exit status 2).

    The message is one line: the setting, its value, the remedy.
    """


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device's memory, or the machine's, did not suffice."""
    # By name and text: importing torch to compare types would slow every mistake down. On a CPU
    # torch raises a plain RuntimeError.
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or "can't allocate memory" in str(error)


class RunError(Exception):
    """The work itself failed: diverged training, a full disk, a lost device (exit status 1)."""
