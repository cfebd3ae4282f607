"""The two ways a run can end badly, told apart by the exit status they cause."""


class UserError(Exception):
    """A mistake the user can mend (exit status 2).

    The message is one line: the setting, its value, the remedy.
    """


class RunError(Exception):
    """The work itself failed: diverged training, a full disk, a lost device (exit status 1)."""
