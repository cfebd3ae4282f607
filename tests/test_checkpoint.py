import errno
import os

import pytest
import torch
from safetensors import SafetensorError

from diffnas import checkpoint
from diffnas.checkpoint import (
    load_state,
    new_folder,
    save_state,
    within,
    write_atomically,
    write_json,
)
from diffnas.errors import RunError, UserError

STATE = {"a/weight": torch.randn(3, 2), "b/step": torch.tensor(7.0)}


def test_a_state_comes_back_to_the_last_bit(tmp_path):
    save_state(tmp_path / "new" / "x.safetensors", STATE, {"step": "3"})
    tensors, meta = load_state(tmp_path / "new" / "x.safetensors")
    assert meta == {"step": "3"}
    assert tensors.keys() == STATE.keys()
    assert all(torch.equal(tensors[name], STATE[name]) for name in STATE)


def test_views_are_saved_as_what_they_show(tmp_path):
    whole = torch.arange(6.0).reshape(2, 3)
    save_state(tmp_path / "x", {"column": whole[:, 1]}, {})
    assert load_state(tmp_path / "x")[0]["column"].tolist() == [1, 4]


def test_no_file_is_no_state(tmp_path):
    assert load_state(tmp_path / "x") is None


@pytest.mark.parametrize("kept", [0, 5, 40, -1])
def test_a_damaged_file_is_no_state(tmp_path, kept):
    save_state(tmp_path / "x", STATE, {})
    content = (tmp_path / "x").read_bytes()
    (tmp_path / "x").write_bytes(content[:kept])
    assert load_state(tmp_path / "x") is None


def test_a_writer_that_fails_leaves_the_old_file_and_no_litter(tmp_path):
    file = tmp_path / "x.json"
    write_json(file, {"old": 1})

    def fail(path):
        path.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(file, fail)
    assert file.read_text() == '{\n  "old": 1\n}\n'
    assert list(tmp_path.iterdir()) == [file]


def no_space(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def no_space_in_rust(*_, **__):
    raise SafetensorError(
        "Error while serializing: I/O error: No space left on device (os error 28)"
    )


@pytest.mark.parametrize("failure", [no_space, no_space_in_rust])
def test_a_full_disk_is_said_in_one_line_and_harms_nothing(tmp_path, monkeypatch, failure):
    file = tmp_path / "x"
    save_state(file, STATE, {"step": "1"})
    monkeypatch.setattr(checkpoint, "save_file", failure)
    with pytest.raises(RunError, match=r"x: no space left on the disk; free some") as error:
        save_state(file, STATE, {"step": "2"})
    assert "\n" not in str(error.value)
    assert load_state(file)[1] == {"step": "1"}
    assert list(tmp_path.iterdir()) == [file]


def test_a_disk_too_full_for_a_temporary_file_is_said_too(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint.tempfile, "mkstemp", no_space)
    with pytest.raises(RunError, match="no space left"):
        write_json(tmp_path / "x", {})


def test_other_errors_stay_what_they_are(tmp_path):
    def fail(_):
        raise OSError(errno.EACCES, "Permission denied")

    with pytest.raises(OSError, match="Permission denied"):
        write_atomically(tmp_path / "x", fail)


def test_leftovers_of_killed_processes_go_with_the_next_write(tmp_path):
    old, young, other = (tmp_path / f".{name}.part" for name in ("x.aaaa", "x.bbbb", "y.aaaa"))
    for file in (old, young, other):
        file.write_text("half")
    for file in (old, other):
        os.utime(file, (0, 0))
    write_json(tmp_path / "x", {})
    assert sorted(tmp_path.iterdir()) == sorted([young, other, tmp_path / "x"])


def test_a_file_is_as_readable_as_any_other(tmp_path):
    write_json(tmp_path / "x", {})
    (tmp_path / "plain").write_text("")
    assert (tmp_path / "x").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_within_takes_names_apart():
    assert within({"a/x": 1, "a/y/z": 2, "b/x": 3}, "a/") == {"x": 1, "y/z": 2}


def fill(folder, content):
    with new_folder(folder, "mark", "a made folder") as new:
        (new / "mark").write_text("")
        (new / "content").write_text(content)


def test_a_link_to_a_folder_stays_when_the_folder_is_replaced(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "made")
    for content in ("first", "second"):
        fill(tmp_path / "link", content)
        assert (tmp_path / "made" / "content").read_text() == content
    assert (tmp_path / "link").is_symlink()
    assert {each.name for each in tmp_path.iterdir()} == {"link", "made"}


def test_an_empty_folder_is_filled_and_not_removed(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    fill(".", "new")
    assert os.path.exists("content")
    assert {each.name for each in tmp_path.iterdir()} == {"here"}


def test_a_file_that_may_not_be_read_is_not_taken_for_damaged(tmp_path, monkeypatch):
    save_state(tmp_path / "x", STATE, {})
    monkeypatch.setattr(checkpoint.os, "access", lambda *_: False)
    with pytest.raises(UserError, match=r"x: not readable; check its permissions$"):
        load_state(tmp_path / "x")
