"""What goes wrong, as one line and an exit status; a traceback only where asked for."""

import errno

from diffnas.errors import (
    INTERRUPTED,
    INTERRUPTION,
    RunError,
    UserError,
    is_disk_full,
    is_out_of_memory,
)

FAILURE, MISTAKE = 1, 2

EXTRAS = {
    "torch_fidelity": "fid",
    "onnx": "onnx",
    "onnxscript": "onnx",
    "onnxruntime": "onnx",
    "openvino": "openvino",
    "transformers": "text",
    "sentencepiece": "text",
}
"""Packages that are not always installed, by import name -> DiffNAS's extra."""


def explain(error: BaseException) -> tuple[str, int]:
    """The line to print and the exit status.

    2: the user can mend it; 1: the work failed; 130: stopped by the user.
    """
    if is_out_of_memory(error):
        return _OUT_OF_MEMORY, FAILURE
    match error:
        case KeyboardInterrupt():
            return INTERRUPTION, INTERRUPTED
        case UserError():
            return one_line(error), MISTAKE
        case RunError():
            return one_line(error), FAILURE
        case ModuleNotFoundError():
            return _missing_package(error.name or "?"), MISTAKE
        case OSError():
            return _operating_system(error)
        case RuntimeError() if str(error) == _NO_HOME:
            return "a path begins with ~ and a name that no user here has; write it out", MISTAKE
    kind = type(error).__name__
    return f"{kind}: {one_line(error)} (--debug shows where; please report it)", FAILURE


def one_line(error: BaseException) -> str:
    """The message without line breaks, and without the frames that torch puts behind some."""
    return " ".join(str(error).partition("\nException raised from ")[0].split())


# Not --batch-size: it would change the supernet too, and the search would be made anew.
_OUT_OF_MEMORY = (
    "out of memory; try a smaller batch (supernet.batch_size, score.batch_size, retrain.batch_size "
    "or evaluate.batch_size, whichever stage it was), another --device, or --precision bf16, which "
    "starts over"
)


_NO_HOME = "Could not determine home directory."
"""What pathlib says of ``~name``, and nothing more."""


def _missing_package(name: str) -> str:
    package = name.partition(".")[0]
    if package in EXTRAS:
        return f"{package} is not installed; install DiffNAS with its extra '{EXTRAS[package]}'"
    return f"{package} is not installed; pip install {package.replace('_', '-')}"


def _operating_system(error: OSError) -> tuple[str, int]:
    where = f"{error.filename}: " if error.filename else ""
    if is_disk_full(error):
        return f"{where}disk full; free some space, the same command goes on from here", FAILURE
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{where}permission denied; choose another path or mend its rights", MISTAKE
    return f"{where}{error.strerror or one_line(error)}", FAILURE
