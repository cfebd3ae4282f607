"""Real processes, stopped from outside in the middle of their work."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

import diffnas
from tests.end_to_end.runs import command, compress

STUDENT = "students/macs-0.6"
STEPS = {"supernet__steps": "20", "retrain__steps": "20"}

START = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # parents may have it ignored
from diffnas import checkpoint, training
training.SAVE_EVERY = checkpoint.STALE = 0.0
runpy.run_module("diffnas", run_name="__main__", alter_sys=True)
"""
"""``python -m diffnas`` with a checkpoint after every step, and leftovers swept at once."""


@contextmanager
def started(teacher: Path, run: Path) -> Iterator[subprocess.Popen[str]]:
    words = command(teacher, run, "--macs", "0.6", **STEPS)
    process = subprocess.Popen(
        [sys.executable, "-c", START, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    with process:
        yield process
        process.kill()


def wait_for(process: subprocess.Popen[str], log: Path, stage: str, step: int) -> None:
    """Until that step of the stage is in the log."""
    while process.poll() is None:
        lines = log.read_text().splitlines() if log.exists() else []
        taken = [json.loads(line).get("stage") for line in lines if line.endswith("}")]
        if taken.count(stage) >= step:
            return
        time.sleep(0.01)
    raise AssertionError(f"ended before: {process.communicate()}")


def test_a_run_killed_twice_ends_as_if_it_had_not_been(teacher, tmp_path, capsys, monkeypatch):
    run, log = tmp_path / "killed", tmp_path / "killed" / "log.jsonl"
    for stage in ("supernet", "retrain"):
        with started(teacher, run) as process:
            wait_for(process, log, stage, 4)
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        assert 4 <= log.read_text().count(f'"{stage}"') < 20
    assert not (run / STUDENT / "pipeline").exists()
    monkeypatch.setattr("diffnas.checkpoint.STALE", 0.0)
    assert compress(teacher, run, "--macs", "0.6", **STEPS) == 0
    told = capsys.readouterr().err
    assert "supernet" not in told
    assert "retrain of" not in told  # but from a step on
    assert "damaged" not in told
    assert not [path for path in run.rglob("*") if path.suffix in (".part", ".new", ".old")]

    assert compress(teacher, tmp_path / "whole", "--macs", "0.6", **STEPS) == 0
    ours, theirs = (
        json.loads((path / STUDENT / "architecture.json").read_text())["blocks"]
        for path in (run, tmp_path / "whole")
    )
    assert ours == theirs
    ours, theirs = (
        diffnas.load(path / STUDENT / "pipeline").unet.state_dict()
        for path in (run, tmp_path / "whole")
    )
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value)


def test_an_interrupt_ends_with_one_line(teacher, tmp_path):
    log = tmp_path / "run" / "log.jsonl"
    with started(teacher, tmp_path / "run") as process:
        wait_for(process, log, "supernet", 3)
        process.send_signal(signal.SIGINT)
        printed, told = process.communicate(timeout=30)
    # A shell reports both as 130; Python ends by the signal where it came inside of an exec.
    assert process.returncode in (130, -signal.SIGINT)
    assert printed == ""
    assert "Traceback" not in told
    last = told.splitlines()[-1]
    assert last == "diffnas: interrupted; a run goes on from here with the same command"
    assert all(line.startswith(("trunk", "supernet")) for line in told.splitlines()[:-1])
