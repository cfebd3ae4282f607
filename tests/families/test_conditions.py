"""What a model is told of images."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from diffnas.data import Embeddings
from diffnas.errors import UserError
from diffnas.families.conditions import both, of_captions, of_classes, random_classes, replaced
from tests.engine import tiny_data

ROWS = np.array([2, 0])
CONDITION = {"text": torch.arange(12.0).view(3, 2, 2), "size": torch.arange(3)}
NOTHING = {"text": torch.full((1, 2, 2), -1.0), "size": torch.tensor([-1.0])}


def encode(texts):
    return {"length": torch.tensor([len(text) for text in texts])}


def test_marked_rows_are_replaced_and_no_others():
    found = replaced(CONDITION, NOTHING, torch.tensor([False, True, False]))
    for name, each in CONDITION.items():
        assert torch.equal(found[name][[0, 2]], each[[0, 2]])
        assert torch.equal(found[name][1], NOTHING[name][0].to(each))


def test_what_is_replaced_keeps_its_type():
    found = replaced(CONDITION, NOTHING, torch.ones(3, dtype=torch.bool))
    assert found["size"].dtype == CONDITION["size"].dtype


def test_both_is_the_condition_and_below_it_nothing():
    found = both(CONDITION, NOTHING)
    for name, each in CONDITION.items():
        assert torch.equal(found[name][:3], each)
        assert torch.equal(found[name][3:], NOTHING[name].to(each).expand_as(each))


def test_what_nothing_does_not_have_is_shown_all_the_same():
    mask = {"mask": torch.arange(3.0)}
    found = replaced(CONDITION | mask, NOTHING, torch.tensor([True, True, True]))
    assert torch.equal(found["mask"], mask["mask"])
    assert both(CONDITION | mask, NOTHING)["mask"].tolist() == [0, 1, 2, 0, 1, 2]


def test_a_model_that_is_told_nothing_has_nothing_replaced():
    assert replaced({}, {}, torch.tensor([True])) == both({}, {}) == {}


def test_classes_are_those_of_the_rows():
    assert of_classes(np.array([5, 6, 7]), ROWS, 8)["class_labels"].tolist() == [7, 5]


def test_missing_classes_are_refused():
    with pytest.raises(UserError, match=r"^data: no classes, but the model takes one of 8; "):
        of_classes(None, ROWS, 8)


@pytest.mark.parametrize("label", [-1, 8])
def test_a_class_that_the_model_does_not_know_is_refused(label):
    with pytest.raises(UserError, match=f"^data: class {label} is out of range; .* 0 to 7, so"):
        of_classes(np.array([label, 0, 0]), ROWS, 8)


def test_a_class_out_of_range_in_another_row_is_of_no_account():
    assert of_classes(np.array([0, 9, 1]), ROWS, 8)["class_labels"].tolist() == [1, 0]


def test_random_classes_follow_from_the_seed():
    drawn = random_classes(300, 3, 1)
    assert np.array_equal(drawn, random_classes(300, 3, 1))
    assert not np.array_equal(drawn, random_classes(300, 3, 2))


def test_random_classes_are_equally_frequent():
    assert np.bincount(random_classes(3000, 3, 0)) == pytest.approx([1000] * 3, rel=0.1)


def test_captions_are_encoded_as_they_are_asked_for():
    data = replace(tiny_data(3), captions=("a", "bb", "ccc"))
    assert of_captions(encode, data, ROWS)["length"].tolist() == [3, 1]


def test_data_without_captions_are_refused():
    with pytest.raises(UserError, match=r"^data: no captions, but the model takes text; "):
        of_captions(encode, tiny_data(), ROWS)


def test_captions_that_were_encoded_beforehand_are_taken():
    embeddings = Embeddings(
        {"text": np.array([[0.5], [1.5]], np.float16)},
        {"text": np.zeros((1, 1), np.float16)},
        np.array([0, 1, 1]),
    )
    data = replace(tiny_data(3), captions=("a", "b", "b"), embeddings=embeddings)
    found = of_captions(lambda _: pytest.fail("encoded again"), data, ROWS)["text"]
    assert found.tolist() == [[1.5], [0.5]]
    assert found.dtype == torch.float32
