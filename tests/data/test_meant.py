"""Settings that mean nothing for the data that were given are refused, never left unread."""

import datasets
import pytest
from PIL import Image

from diffnas.data import load_data
from diffnas.errors import UserError
from diffnas.own_samples import own_samples
from diffnas.settings import parse
from tests.engine import tiny_teacher

COLUMNS = [("image_column", "photo"), ("streaming", True)]
CONDITIONS = [("label_column", "kind"), ("caption_column", "alt")]
SPLIT = ("split_by", "folder")


def refused(source, setting, value):
    given = {"size": (8, 8), "channels": 1, "captioned": True, setting: value}
    word = "true" if value is True else value
    with pytest.raises(UserError, match=rf"^data\.{setting} = {word}: .*; leave it out, or give "):
        load_data(str(source), **given)


@pytest.mark.parametrize(("setting", "value"), COLUMNS)
def test_a_folder_of_images_has_no_columns_and_is_never_streamed(tmp_path, setting, value):
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    refused(tmp_path, setting, value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"classes": 2}, "no classes, but the model takes one of 2; set data.label_column"),
        ({"classes": 2, "label_column": "any"}, "class 2 is out of range; the model knows 0 to 1"),
    ],
)
def test_classes_that_a_model_does_not_know_are_refused_before_decoding(tmp_path, given, words):
    for name in "abc":
        (tmp_path / name).mkdir()
        (tmp_path / name / "damaged.png").write_bytes(b"")  # decoded, it would be counted
    with pytest.raises(UserError, match=words):
        load_data(str(tmp_path), size=(8, 8), channels=1, **given)


@pytest.mark.parametrize(("setting", "value"), [*COLUMNS, *CONDITIONS, SPLIT])
def test_the_digits_are_as_they_are(setting, value):
    refused("digits", setting, value)


def test_a_data_set_has_no_folders(tmp_path, monkeypatch):
    table = datasets.Dataset.from_dict({"photo": [Image.new("L", (8, 8))], "text": ["one"]})
    table.save_to_disk(tmp_path)
    monkeypatch.setattr(datasets, "load_from_disk", None)  # it may be large: never opened
    refused(tmp_path, *SPLIT)


@pytest.mark.parametrize(("setting", "value"), [*COLUMNS, *CONDITIONS, SPLIT, ("crop", "buckets")])
def test_the_teachers_own_samples_are_made_not_found(tmp_path, setting, value):
    settings = parse({"data": {setting: value}})
    with pytest.raises(UserError, match=rf"^data\.{setting} = .*; leave it out, or give "):
        own_samples(tiny_teacher(), settings, tmp_path)
    assert not list(tmp_path.iterdir())
