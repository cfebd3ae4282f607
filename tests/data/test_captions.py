"""Captions come from metadata.jsonl, a column or the digits' names, and stay with their images."""

import json
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from diffnas.data import load_data
from diffnas.data.captions import read_captions
from diffnas.errors import UserError


def write(folder, *lines):
    folder.mkdir(parents=True, exist_ok=True)
    texts = (line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / "metadata.jsonl").write_text("".join(f"{text}\n" for text in texts))


def line(name, text, column="text"):
    return {"file_name": name, column: text}


def read(folder, *names, column=None):
    return read_captions(folder, [Path(name) for name in names], column)


def save(path, colour):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (9, 12), colour).save(path)


def load(source, **settings):
    chosen = {"size": (8, 8), "channels": 1, "captioned": True, **settings}
    return load_data(str(source), **chosen)


def colours(data):
    return tuple(str(colour) for colour in data.images[:, 0, 0, 0])


def test_they_are_in_the_order_of_the_files(tmp_path):
    write(tmp_path, line("b.png", "two"), line("a.png", "one"), line("gone.png", "three"))
    assert read(tmp_path, "a.png", "b.png") == ["one", "two"]


@pytest.mark.parametrize(
    ("on_disk", "written"), [("e\u0301.png", "\u00e9.png"), ("a/1.png", "b/../a/1.png")]
)
def test_a_path_written_in_another_way_is_that_path(tmp_path, on_disk, written):
    write(tmp_path, line(written, "a cat"))
    assert read(tmp_path, on_disk) == ["a cat"]


def test_a_folder_within_is_named_by_the_table_or_has_its_own(tmp_path):
    write(tmp_path, line("a.png", "one"), line("x/b.png", "two"))
    write(tmp_path / "y" / "deep", line("c.png", "three"))
    assert read(tmp_path, "a.png", "x/b.png", "y/deep/c.png") == ["one", "two", "three"]


def test_another_column_can_be_named(tmp_path):
    write(tmp_path, {"file_name": "a.png", "text": "one", "alt": "another"})
    assert read(tmp_path, "a.png", column="alt") == ["another"]


def test_empty_lines_are_passed_over(tmp_path):
    write(tmp_path, "", line("a.png", "one"), "  ")
    assert read(tmp_path, "a.png") == ["one"]


@pytest.mark.parametrize("mark", ["\u2028", "\u0085"])
def test_a_caption_may_hold_what_unicode_calls_a_line_break(tmp_path, mark):
    text = f"one{mark}two"
    table = json.dumps(line("a.png", text), ensure_ascii=False)
    (tmp_path / "metadata.jsonl").write_text(table, encoding="utf-8")
    assert read(tmp_path, "a.png") == [text]


def test_a_folder_without_a_table_is_told_how_to_write_one(tmp_path):
    with pytest.raises(UserError, match=r'^data: no captions in .*"file_name": "a\.png", "alt"'):
        read(tmp_path, "a.png", column="alt")


def test_files_without_a_line_are_counted_and_one_is_named(tmp_path):
    write(tmp_path, line("a.png", "one"))
    with pytest.raises(UserError, match=r"2 of 3 images have no caption in .*, e\.g\. x/b\.png;"):
        read(tmp_path, "a.png", "x/b.png", "x/c.png")


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ("{", r"line 3: not JSON"),
        ("[1, 2]", r"line 3: no file_name"),
        ({"text": "two"}, r"line 3: no file_name"),
        ({"file_name": 2, "text": "two"}, r"line 3: no file_name"),
        ({"file_name": "b.png"}, r"line 3: no text 'text'; .*data\.caption_column"),
        (line("b.png", None), r"line 3: no text 'text'"),
        (line("b.png", ["two"]), r"line 3: no text 'text'"),
    ],
)
def test_a_bad_line_is_named_by_its_number(tmp_path, bad, words):
    write(tmp_path, line("a.png", "one"), "", bad)
    with pytest.raises(UserError, match=rf"metadata\.jsonl, {words}") as caught:
        read(tmp_path, "a.png", "b.png")
    assert "\n" not in str(caught.value)


def test_a_second_line_of_a_file_is_refused(tmp_path):
    write(tmp_path, line("a.png", "one"), line("a.png", "two"))
    with pytest.raises(UserError, match=r"line 2: a second caption of a\.png; keep one"):
        read(tmp_path, "a.png")


def test_lines_of_files_that_are_not_there_may_lack_a_text(tmp_path):
    write(tmp_path, line("a.png", "one"), {"file_name": "gone.png"})
    assert read(tmp_path, "a.png") == ["one"]


def test_a_table_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "metadata.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"metadata\.jsonl: not UTF-8"):
        read(tmp_path, "a.png")


def test_a_line_on_a_file_elsewhere_is_of_no_account(tmp_path):
    write(tmp_path, line("a.png", "one"), line("/elsewhere/b.png", "two"), line("../c.png", "no"))
    assert read(tmp_path, "a.png") == ["one"]


@pytest.fixture
def pictures(tmp_path):
    """A folder of 20 pictures and an unreadable one, whose captions are their colours."""
    names = [f"{'x/' if colour % 2 else ''}{colour}.png" for colour in range(20)]
    for colour, name in enumerate(names):
        save(tmp_path / name, colour)
    (tmp_path / "11.png").write_bytes(b"no picture")
    lines = [line(name, str(colour)) for colour, name in enumerate(names)]
    write(tmp_path, line("11.png", "none"), *lines)
    return tmp_path


@pytest.mark.parametrize("limit", [None, 7])
def test_a_folders_captions_stay_with_their_images(pictures, limit):
    data = load(pictures, limit=limit)
    assert data.captions == colours(data)
    assert len(data.captions) == (20 if limit is None else len(data.images))


def test_an_unreadable_picture_takes_its_caption_with_it(pictures):
    data = load(pictures)
    assert data.skipped == 1
    assert "none" not in data.captions


def test_a_folders_captions_are_read_only_when_asked_for(tmp_path):
    save(tmp_path / "a.png", 1)
    (tmp_path / "metadata.jsonl").write_text("no JSON")
    assert load(tmp_path, captioned=False).captions is None
    with pytest.raises(UserError, match="not JSON"):
        load(tmp_path)


def test_a_folders_column_can_be_named(tmp_path):
    save(tmp_path / "a.png", 1)
    write(tmp_path, line("a.png", "one", column="alt"))
    assert load(tmp_path, caption_column="alt").captions == ("one",)


def test_digits_are_named(tmp_path):
    data = load("digits", limit=50)
    words = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    assert data.captions == tuple(words[label] for label in data.labels)
    assert set(data.captions) == set(words)
    assert load("digits", captioned=False).captions is None


@pytest.fixture
def saved(tmp_path):
    """A data set saved by `datasets`, whose captions are its pictures' colours."""

    def save_(**columns):
        photos = [Image.new("L", (8, 8), colour) for colour in range(20)]
        photos[11] = None
        datasets.Dataset.from_dict({"photo": photos, **columns}).save_to_disk(tmp_path)
        return tmp_path

    return save_


@pytest.mark.parametrize("column", [None, "alt"])
@pytest.mark.parametrize("limit", [None, 15])
def test_a_columns_captions_stay_with_their_images(saved, column, limit):
    source = saved(**{column or "text": [str(colour) for colour in range(20)]})
    data = load(source, caption_column=column, limit=limit)
    assert data.captions == colours(data)
    assert len(data.captions) == (limit or 20) - data.skipped


def test_a_columns_captions_are_read_only_when_asked_for(saved):
    assert load(saved(text=["a"] * 20), captioned=False).captions is None


def test_a_missing_column_is_an_error_that_lists_the_columns(saved):
    source = saved(alt=["a"] * 20)
    for named, words in ((None, "'text'"), ("gone", "'gone'")):
        with pytest.raises(UserError, match=f"^data.caption_column: .*{words}.* are photo, alt"):
            load(source, caption_column=named)


@pytest.mark.parametrize("values", [[1] * 20, ["a"] * 19 + [None], [["a", "b"]] * 20])
def test_a_column_that_is_not_one_text_an_image_is_refused(saved, values):
    with pytest.raises(
        UserError, match=r"^data.caption_column: 'text' .* is not one text an image"
    ):
        load(saved(text=values))


def test_captions_do_not_change_the_split(pictures):
    with_them, without = load(pictures), load(pictures, captioned=False)
    assert np.array_equal(with_them.held_out, without.held_out)
