import weakref

import numpy as np
import pytest

from diffnas.data import load_data
from diffnas.errors import UserError
from diffnas.measure.quality import extract, nearest_distance, quality


@pytest.fixture(scope="module")
def digits():
    data = load_data("digits", size=(8, 8), channels=1)
    return data.images[data.seen], data.images[data.held_out]


def test_same_images_are_at_no_distance(digits):
    _, held_out = digits
    assert quality(held_out, held_out, "digits")["frechet_distance"] < 1e-6


def test_quality_is_deterministic(digits):
    seen, held_out = digits
    assert quality(seen, held_out, "digits") == quality(seen, held_out, "digits")


def test_noise_is_far_from_digits(digits):
    seen, held_out = digits
    noise = np.random.default_rng(0).integers(0, 256, seen.shape, dtype=np.uint8)
    real, wrong = quality(seen, held_out, "digits"), quality(noise, held_out, "digits")
    assert wrong["frechet_distance"] > 20 * real["frechet_distance"]
    assert wrong["kernel_distance"] > 20 * abs(real["kernel_distance"])


def test_changed_reference_is_not_taken_from_the_cache(digits):
    seen, held_out = digits
    reference = held_out.copy()
    before = quality(seen, reference, "digits")
    reference //= 2
    assert quality(seen, reference, "digits") != before


def test_of_references_only_the_features_are_kept(digits, monkeypatch):
    seen, held_out = digits
    counts = []

    def counted(images, *how):
        counts.append(len(images))
        return extract(images, *how)

    monkeypatch.setattr("diffnas.measure.quality.extract", counted)
    reference = 255 - held_out[:80]  # asked for nowhere else
    freed = weakref.ref(reference)
    expected = quality(seen, reference, "digits")
    del reference
    assert freed() is None
    assert quality(seen, 255 - held_out[:80], "digits") == expected
    assert counts == [80, len(seen), len(seen)]


def test_too_few_images_are_refused_with_a_remedy(digits):
    seen, held_out = digits
    with pytest.raises(UserError, match=r"64 generated images are too few.*at least 65"):
        quality(seen[:64], held_out, "digits")
    quality(seen[:65], held_out[:65], "digits")


def test_nearest_distance_is_zero_for_copies(digits):
    seen, held_out = digits
    assert nearest_distance(seen[:50], seen) < 1e-3
    assert nearest_distance(held_out, seen) > 0.05


def test_nearest_distance_is_in_shares_of_the_pixel_range():
    black, white = np.zeros((2, 1, 8, 8), np.uint8), np.full((2, 1, 8, 8), 255, np.uint8)
    assert nearest_distance(black, white) == pytest.approx(1)
