"""Drawn shapes, and the verdict on what an image shows."""

import numpy as np
import pytest
from shapes.drawing import BACKGROUNDS, COLOURS, RADII, SHAPES, WORDS, Words, coverage, drawn
from shapes.parts import tokenizer
from shapes.verdict import seen, shares_right


def images(words, seed=0):
    rng = np.random.default_rng(seed)
    return np.stack([drawn(each, rng) for each in words]).transpose(0, 3, 1, 2)


def test_captions_name_all_that_varies():
    assert len({words.caption for words in WORDS}) == 2 * 4 * 4 * 3
    assert WORDS[0].caption == "a small red circle on black"


def test_a_shape_covers_the_colour_it_is_said_to_have():
    words = Words("large", "blue", "square", "grey")
    (image,) = images([words])
    colours = {tuple(pixel) for pixel in image.reshape(3, -1).T.tolist()}
    assert {COLOURS["blue"], BACKGROUNDS["grey"]} <= colours


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_lie_wholly_inside_and_are_as_large_as_said(shape):
    for radius in RADII.values():
        covered = coverage(shape, radius, 8, 8)
        rows, columns = np.nonzero(covered)
        assert np.ptp(rows) + 1 == pytest.approx(2 * radius, abs=1)
        assert np.ptp(columns) + 1 == pytest.approx(2 * radius, abs=1)


def test_the_same_generator_draws_the_same():
    assert np.array_equal(images(WORDS), images(WORDS))
    assert not np.array_equal(images(WORDS), images(WORDS, seed=1))


def test_what_is_drawn_is_seen():
    found, distance = seen(images(WORDS))
    assert found == list(WORDS)
    assert distance.max() < 20


def test_what_is_drawn_is_seen_through_noise():
    noise = np.random.default_rng(1).normal(0, 25, (len(WORDS), 3, 16, 16))
    noisy = (images(WORDS) + noise).clip(0, 255).astype(np.uint8)
    assert shares_right(list(WORDS), noisy)["all"] == 1


def test_every_word_counts_for_itself():
    asked = [Words("small", "red", "circle", "black"), Words("large", "red", "cross", "white")]
    shown = [Words("small", "red", "square", "black"), Words("large", "blue", "cross", "white")]
    shares = shares_right(asked, images(shown))
    del shares["distance"]
    assert shares == {
        **{"size": 1, "colour": 0.5, "shape": 0.5, "background": 1, "kind": 0, "all": 0}
    }


def test_a_plain_surface_is_far_from_every_drawing():
    _, distance = seen(np.full((1, 3, 16, 16), 128, np.uint8))
    _, usual = seen(images(WORDS))
    assert distance[0] > 2 * usual.mean()


def test_the_tokenizer_knows_every_word_and_spells_others():
    words = tokenizer()
    assert len(words(WORDS[0].caption).input_ids) == 6 + 2
    assert len(words("cab").input_ids) == 3 + 2
