"""Captions are encoded once, and left out of a share of the training."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from diffnas.data import Data
from diffnas.embeddings import check_dropout, with_embeddings
from diffnas.errors import UserError
from diffnas.families import Teacher
from tests.engine import tiny_data, tiny_teacher
from tests.painter import NOTHING, captions, painter


def captioned(*texts: str) -> Data:
    return replace(tiny_data(len(texts)), captions=texts)


def listening() -> tuple[Teacher, list[str]]:
    """A teacher of texts with two tensors a caption, and all that it has encoded."""
    heard: list[str] = []

    def encode(_, texts):
        heard.extend(texts)
        value = captions(_, texts)["value"].view(-1, 1)
        return {"value": value, "grid": value[..., None] * torch.tensor([[1.0, 2.0, 4.0]])}

    nothing = {"value": torch.tensor([[NOTHING]]), "grid": torch.full((1, 1, 3), NOTHING)}
    family = replace(painter().family, captions=encode, nothing=lambda _: nothing)
    return replace(painter(), family=family), heard


def test_what_was_encoded_is_told_as_if_it_were_encoded_then(tmp_path):
    teacher, _ = listening()
    data = captioned("0.5", "-0.25", "0.5", "0.125")
    known, rows = with_embeddings(teacher, data, tmp_path), np.array([3, 1, 0, 2])
    found, expected = (teacher.condition(each, rows) for each in (known, data))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], each) for name, each in expected.items())


def test_equal_captions_are_encoded_once(tmp_path):
    teacher, heard = listening()
    with_embeddings(teacher, captioned("0.5", "0.25", "0.5", "0.5"), tmp_path)
    assert sorted(heard) == ["0.25", "0.5"]


def test_images_in_buckets_are_told_theirs(tmp_path):
    teacher, heard = listening()
    data = captioned("0.5", "0.25", "0.125", "0.5")
    parts = tuple(
        replace(data, captions=tuple(data.captions[row] for row in rows), images=data.images[rows])
        for rows in ([0, 2], [3, 1])
    )
    known = with_embeddings(teacher, replace(data, buckets=parts), tmp_path)
    assert len(heard) == 3
    told = [teacher.condition(part, np.arange(2))["value"] for part in known.buckets]
    assert [each.flatten().tolist() for each in told] == [[0.5, 0.125], [0.5, 0.25]]


def test_nothing_is_kept_too(tmp_path):
    teacher, _ = listening()
    known = with_embeddings(teacher, captioned("0.5"), tmp_path)
    for name, each in teacher.nothing().items():
        torch.testing.assert_close(teacher.nothing(known)[name], each, rtol=1e-3, atol=0)


def test_a_model_that_cannot_be_told_nothing_has_its_captions_kept(tmp_path):
    teacher, _ = listening()
    teacher = replace(teacher, family=replace(teacher.family, nothing=None))
    known = with_embeddings(teacher, captioned("0.5", "0.25"), tmp_path)
    assert teacher.condition(known, np.array([1, 0]))["value"].tolist() == [[0.25], [0.5]]
    assert teacher.nothing(known) is None


def test_a_second_call_reads_them(tmp_path):
    teacher, heard = listening()
    data = captioned("0.5", "0.25")
    first = with_embeddings(teacher, data, tmp_path).embeddings
    heard.clear()
    again = with_embeddings(teacher, data, tmp_path).embeddings
    assert not heard
    np.testing.assert_array_equal(again.rows["grid"], first.rows["grid"])


def test_what_was_interrupted_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr("diffnas.embeddings.PART", 2)
    monkeypatch.setattr("diffnas.data.filled.SECONDS", 0.0)
    data = captioned("0.0625", "0.125", "0.25", "0.5", "0.75")
    teacher, heard = listening()

    def stopped(pipeline, texts):
        if "0.25" in texts:
            raise KeyboardInterrupt
        return teacher.family.captions(pipeline, texts)

    half = replace(teacher, family=replace(teacher.family, captions=stopped))
    with pytest.raises(KeyboardInterrupt):
        with_embeddings(half, data, tmp_path)
    assert heard == ["0.0625", "0.125"]
    heard.clear()
    known = with_embeddings(teacher, data, tmp_path)
    assert heard == ["0.25", "0.5", "0.75"]
    told = teacher.condition(known, np.arange(5))["value"].flatten()
    assert told.tolist() == [0.0625, 0.125, 0.25, 0.5, 0.75]


def test_other_captions_are_encoded_anew(tmp_path):
    teacher, heard = listening()
    with_embeddings(teacher, captioned("0.5", "0.25"), tmp_path)
    other = captioned("0.5", "0.75")
    known = with_embeddings(teacher, other, tmp_path)
    assert teacher.condition(known, np.arange(2))["value"].tolist() == [[0.5], [0.75]]
    assert heard.count("0.5") == 2


def test_states_that_outgrow_half_precision_are_kept_in_single(tmp_path):
    teacher, _ = listening()
    large = {name: each * 1e6 for name, each in teacher.nothing().items()}
    teacher = replace(teacher, family=replace(teacher.family, nothing=lambda _: large))
    known = with_embeddings(teacher, captioned("100000", "0.25"), tmp_path)
    assert teacher.condition(known, np.array([0]))["grid"].tolist() == [[[1e5, 2e5, 4e5]]]
    for name, each in large.items():
        assert torch.equal(teacher.nothing(known)[name], each)


def test_so_are_they_if_one_caption_alone_does(tmp_path):
    teacher, heard = listening()
    for times in (1, 0):  # and are read by a second call
        heard.clear()
        known = with_embeddings(teacher, captioned("0.25", "20000"), tmp_path)
        assert ("0.25" in heard) == (times > 0)
        assert teacher.condition(known, np.arange(2))["grid"].tolist() == [
            [[0.25, 0.5, 1.0]],
            [[2e4, 4e4, 8e4]],
        ]


def test_a_model_without_text_has_none(tmp_path):
    data = captioned("0.5")
    assert with_embeddings(tiny_teacher(), data, tmp_path) is data
    assert not list(tmp_path.iterdir())


def test_the_share_that_is_left_out_is_noted():
    check_dropout(painter(), 0.25)


def test_conditions_cannot_be_left_out_where_none_stands_for_nothing():
    with pytest.raises(UserError, match=r"^data\.condition_dropout = 0\.25: the model has no"):
        check_dropout(tiny_teacher(), 0.25)
    check_dropout(tiny_teacher(), 0.0)
