import numpy as np
import pytest
import torch

from diffnas.data import AUGMENTATIONS, batch, load_data, to_float
from diffnas.errors import UserError


@pytest.fixture(scope="module")
def digits():
    return load_data("digits", size=(8, 8), channels=1)


def test_digits_use_the_whole_range_of_bytes(digits):
    assert digits.images.shape == (1797, 1, 8, 8)
    assert digits.images.dtype == np.uint8
    assert (digits.images.min(), digits.images.max()) == (0, 255)


def test_split_is_the_same_every_time(digits):
    again = load_data("digits", size=(8, 8), channels=1)
    assert np.array_equal(digits.held_out, again.held_out)


def test_split_covers_everything_once(digits):
    both = np.concatenate([digits.seen, digits.held_out])
    assert np.array_equal(np.sort(both), np.arange(1797))


def test_split_holds_out_a_fifth_of_every_class(digits):
    share = np.bincount(digits.labels[digits.held_out]) / np.bincount(digits.labels)
    assert np.allclose(share, 0.2, atol=0.01)


def test_digits_come_larger_and_in_colour_on_request():
    data = load_data("digits", size=(16, 16), channels=3, limit=10)
    assert data.images.shape == (10, 3, 16, 16)
    assert np.array_equal(data.images[:, 0], data.images[:, 2])


def test_to_float_spans_minus_one_to_one():
    values = to_float(np.array([[[[0, 255]]]], np.uint8))
    assert values.tolist() == [[[[-1.0, 1.0]]]]


def test_batch_is_fixed_by_its_generator(digits):
    first, rows, _ = batch(digits, 16, torch.Generator().manual_seed(3))
    torch.rand(5)  # the global generator is of no consequence
    second, same, _ = batch(digits, 16, torch.Generator().manual_seed(3))
    assert torch.equal(first, second)
    assert np.array_equal(rows, same)


def test_batch_never_shows_held_out_images():
    data = load_data("digits", size=(8, 8), channels=1, augment="none")
    hidden = {to_float(data.images[i]).numpy().tobytes() for i in data.held_out}
    hidden -= {to_float(data.images[i]).numpy().tobytes() for i in data.seen}
    images, *_ = batch(data, 2000, torch.Generator().manual_seed(0))
    assert not any(image.numpy().tobytes() in hidden for image in images)


def test_digits_augmentation_changes_images_a_little(digits):
    images = to_float(digits.images[:200])
    changed = AUGMENTATIONS["digits"](images, torch.Generator().manual_seed(0))
    difference = (changed - images).abs().mean().item()
    assert 0.005 < difference < 0.1
    assert changed.abs().max() <= 1


def test_flip_mirrors_about_half_of_the_images():
    images = torch.arange(400.0).view(100, 1, 2, 2)
    flipped = AUGMENTATIONS["flip"](images, torch.Generator().manual_seed(0))
    same = (flipped == images).flatten(1).all(1)
    assert 30 < same.sum() < 70
    assert torch.equal(flipped[~same], images[~same].flip(-1))


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        ("channels", 2, "channels 2: cannot be made"),
        ("held_out", 1.0, "data.held_out = 1.0: is no share"),
        ("split_by", "photo", "data.split_by = photo: is not known"),
        ("augment", "rotate", "data.augment = rotate: is not known"),
        ("limit", 0, "data.limit = 0: leaves no images"),
    ],
)
def test_wrong_settings_are_named(setting, value, told):
    settings = {"size": (8, 8), "channels": 1, setting: value}
    with pytest.raises(UserError, match=f"^{told}"):
        load_data("digits", **settings)
