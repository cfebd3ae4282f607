"""Exit statuses, and what stdout and stderr are for."""

import errno
import io
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from diffnas.cli import main
from diffnas.cli.output import print_json, print_table
from diffnas.errors import RunError, UserError
from diffnas.names import folder_name
from diffnas.report.table import side_by_side
from tests.report.runs import make_run

VERBS = ("demo", "compress", "plan", "evaluate", "sample", "report")


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Make ``diffnas report`` fail with that error."""

    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr("diffnas.report.write_report", fail)


def test_help_does_not_wait_for_torch() -> None:
    loaded = "import sys, diffnas.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", loaded], check=False).returncode == 0


def test_an_interrupt_of_the_first_imports_is_one_line_too(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    ended = subprocess.run(
        [sys.executable, "-m", "diffnas", "plan"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    line = "diffnas: interrupted; a run goes on from here with the same command\n"
    assert (ended.returncode, ended.stderr) == (130, line)


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (UserError("--x 1: no\ngood"), 2, "diffnas: --x 1: no good\n"),
        (RunError("diverged at step 3"), 1, "diffnas: diverged at step 3\n"),
        (KeyboardInterrupt(), 130, "interrupted; a run goes on from here with the same command"),
        (OSError(errno.ENOSPC, "No space left", "/disk/a"), 1, "/disk/a: disk full"),
        (PermissionError(errno.EACCES, "denied", "/disk/a"), 2, "/disk/a: permission denied"),
        (MemoryError(), 1, "out of memory; try a smaller batch (supernet.batch"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 1, "out of memory"),
        (RuntimeError("unable to mmap 9 bytes: Cannot allocate memory (12)"), 1, "out of memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), 1, "out of memory; try a smaller batch"),
        (ModuleNotFoundError("no", name="torch_fidelity"), 2, "install DiffNAS with its extra"),
        (RuntimeError("a\nb\nException raised from c:\nframe"), 1, "RuntimeError: a b (--debug"),
        (ZeroDivisionError("a\nb"), 1, "ZeroDivisionError: a b (--debug shows where"),
    ],
)
def test_every_failure_is_one_line_with_its_status(capsys, monkeypatch, error, status, words):
    failing(monkeypatch, error)
    assert main(["report", "run"]) == status
    told = capsys.readouterr().err
    assert words in told
    assert told.count("\n") == 1


def test_what_is_advised_first_when_memory_ran_out_keeps_the_search(capsys, monkeypatch):
    failing(monkeypatch, MemoryError())
    assert main(["report", "run"]) == 1
    first, _, rest = capsys.readouterr().err.partition("another --device")
    assert "retrain.batch_size" in first
    assert "--" not in first  # flags are of all stages
    assert "--batch-size" not in rest


def test_debug_lets_the_traceback_through(monkeypatch):
    failing(monkeypatch, ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        main(["report", "run", "--debug"])


def test_libraries_keep_their_remarks_to_themselves(capsys):
    assert main(["--version"]) == 0
    for name in ("torch.utils._pytree", "torchao", "accelerate", "httpx"):
        assert not logging.getLogger(name).isEnabledFor(logging.WARNING), name


def test_report_writes_the_page_and_prints_where(capsys, tmp_path):
    run = make_run(tmp_path / "run")
    assert main(["report", str(run)]) == 0
    assert capsys.readouterr().out == f"{run / 'report.html'}\n"
    assert (run / "report.html").exists()


def test_the_version_is_printed(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("diffnas ")


@pytest.mark.parametrize("width", ["60", "200"])
@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_fits_the_terminal_and_cuts_nothing(capsys, monkeypatch, verb, width):
    monkeypatch.setenv("COLUMNS", width)
    assert main([verb, "--help"] if verb else []) == 0
    text = capsys.readouterr().out
    assert max(len(line) for line in text.splitlines()) <= int(width)
    assert "…" not in text
    assert all(name in text for name in (VERBS if not verb else ()))


def test_what_an_output_has_no_letters_for_is_not_lost(monkeypatch, tmp_path):
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", stdout)
    run = make_run(tmp_path / "größe")
    assert main(["report", str(run)]) == 0
    stdout.flush()
    assert b"gr\\xf6\\xdfe" in stdout.buffer.getvalue()


def test_json_has_null_where_there_is_no_number(capsys):
    print_json({"a": float("nan"), 2: [float("inf"), 1.5], "é": None})
    assert json.loads(capsys.readouterr().out) == {"a": None, "2": [None, 1.5], "é": None}


def test_a_table_in_a_pipe_is_never_cut(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    names = [f"a-rather-long-name-{i}" for i in range(8)]
    print_table(side_by_side({name: {"params": 1_000_000} for name in names}))
    header = capsys.readouterr().out.splitlines()[0]
    assert header.split() == names


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("digits", "digits"),
        ("google/ddpm-cat-256", "ddpm-cat-256"),
        ("some where/my model!", "my-model"),
        ("..", None),
        ("///", "model"),
        ("~/runs/cats/students/macs-0.5/pipeline", "cats-macs-0.5"),
        ("~/students/pipeline", "pipeline"),
    ],
)
def test_the_run_folder_is_named_after_the_model(tmp_path, monkeypatch, model, name):
    (tmp_path / "outer" / "inner").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "outer" / "inner")
    assert folder_name(model) == (name or "outer")


def test_the_run_folder_of_a_students_student_tells_run_and_student(tmp_path, monkeypatch):
    pipeline = tmp_path / "cats" / "students" / "macs-0.5" / "pipeline"
    pipeline.mkdir(parents=True)
    monkeypatch.chdir(pipeline)
    assert folder_name(".") == folder_name(str(pipeline)) == "cats-macs-0.5"
