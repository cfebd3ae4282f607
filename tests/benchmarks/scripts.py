"""Benchmarks, run from the root of a checkout as a person does."""

import io
import runpy
import sys
from contextlib import chdir, redirect_stdout
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).parents[2]


def run(script: str, *given: object) -> str:
    """What the script prints, run as by itself but for the seconds that imports take."""
    told = io.StringIO()
    words = [script, *map(str, given)]
    with chdir(ROOT), mock.patch.object(sys, "argv", words), redirect_stdout(told):
        runpy.run_path(f"benchmarks/{script}.py", run_name="__main__")
    return told.getvalue()
