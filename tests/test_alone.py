"""One command at a time in a run folder."""

import os
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


def test_a_folder_is_held_also_against_other_temporary_folders(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "temporary").mkdir()
    words = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    where = {**os.environ, "TMPDIR": str(tmp_path / "temporary")}
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=where
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with (
            pytest.raises(UserError, match="another diffnas is at work"),
            alone_in(tmp_path / "run"),
        ):
            pass
        other.kill()
    with alone_in(tmp_path / "run"):
        pass


def test_a_link_to_nothing_is_no_folder_to_work_in(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(UserError, match="link: is a link to nowhere, which is not there"):
        diffnas.compress("digits", data="digits", out=tmp_path / "link")


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="its name is not UTF-8"):
        diffnas.compress("digits", data="digits", out=tmp_path / os.fsdecode(b"run\xff"))


@pytest.mark.parametrize("name", ["model", "data", "out"])
def test_an_empty_name_is_no_folder(name: str) -> None:
    given = {"model": "digits", "data": "digits", name: ""}
    with pytest.raises(UserError, match=f"{name} = '': names nothing"):
        diffnas.compress(given.pop("model"), **given)


def test_a_home_of_nobody_is_a_mistake() -> None:
    with pytest.raises(UserError, match="~nobody-of-that-name/run: "):
        diffnas.compress("digits", data="digits", out="~nobody-of-that-name/run")


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
