"""One command at a time in a run folder."""

import subprocess
import sys
from pathlib import Path

import pytest

import diffnas
from diffnas.alone import alone_in
from diffnas.errors import UserError

HOLD = """
import sys
from pathlib import Path
from diffnas.alone import alone_in
with alone_in(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    words = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        refused = pytest.raises(UserError, match=r"run: another diffnas is at work in it; wait")
        with refused, alone_in(tmp_path / "there" / ".." / "run"):
            pass
        with alone_in(tmp_path / "another"):
            pass
        other.kill()
    with alone_in(tmp_path / "run"):
        pass


def test_a_file_is_no_folder_to_work_in(tmp_path: Path) -> None:
    (tmp_path / "plan.json").touch()
    with pytest.raises(UserError, match=r"plan\.json is a file; name a folder"):
        diffnas.compress("digits", data="digits", out=tmp_path / "plan.json")


def test_nothing_is_left_in_the_folder(tmp_path: Path) -> None:
    with alone_in(tmp_path / "run"):
        assert not (tmp_path / "run").exists()


def test_a_user_needs_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 1234")

    monkeypatch.setattr("getpass.getuser", nameless)
    with alone_in(tmp_path / "run"):
        pass
