"""Pictures that are not square are trained on whole, in the shape nearest to their own."""

import json
from collections import Counter
from itertools import chain

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from diffnas.data import batch, decode, load_data, of_one_shape
from diffnas.data.buckets import shapes
from diffnas.errors import UserError

SHAPES = [(8, 8), (4, 16), (16, 4)]
"""Few, far from each other."""


def save(path, size=(16, 16), value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, value).save(path)


def load(folder, **settings):
    return load_data(str(folder), **({"size": (8, 8), "channels": 1, "shapes": SHAPES} | settings))


def values(data):
    """What each of the images is filled with that it trains on."""
    return sorted(int(data.images[row].flat[0]) for row in data.seen)


@pytest.fixture
def mixed(tmp_path):
    """Twenty squares, ten wide pictures, ten high ones, each filled with its number."""
    sizes = [(16, 16)] * 20 + [(32, 8)] * 10 + [(8, 32)] * 10
    for number, size in enumerate(sizes):
        save(tmp_path / f"{number:02}.png", size, number)
    return tmp_path


@pytest.mark.parametrize(
    ("size", "sides"), [((64, 64), range(8, 999, 8)), ((96, 64), range(16, 999, 16))]
)
def test_shapes_fill_the_area_in_sides_that_a_model_takes(size, sides):
    found = shapes(size, sides)
    assert size in found
    assert len(set(found)) == len(found) > 2
    for height, width in found:
        assert height in sides
        assert width in sides
        assert 0.5 <= width / height <= 2
        # Not one step more would fit.
        shorter, longer = sorted((height, width))
        assert shorter * longer <= size[0] * size[1] < (shorter + sides.step) * longer


@pytest.mark.parametrize("multiple", [4, 8, 32])
def test_there_are_as_many_high_shapes_as_wide_ones(multiple):
    found = shapes((96, 96), range(multiple, 999, multiple))
    assert {(width, height) for height, width in found} == set(found)
    assert max(width / height for height, width in found) > 1.3


def test_a_model_of_large_images_has_no_more_shapes_than_one_of_small_ones():
    small, large = (shapes((side, side), range(8, 9999, 8)) for side in (128, 1024))
    assert len(large) == len(small)


def test_no_shape_has_a_side_beyond_the_longest():
    assert max(max(each) for each in shapes((64, 64), range(8, 73, 8))) == 72


def test_a_wide_picture_is_seen_whole(tmp_path):
    picture = np.zeros((8, 32), np.uint8)
    picture[:, :8], picture[:, -8:] = 255, 128
    Image.fromarray(picture).save(tmp_path / "a.png")
    save(tmp_path / "b.png")
    data = load(tmp_path, held_out=0)
    assert data.images[0].max() == 0  # of its centre nothing is left
    wide = next(part for part in data.buckets if part.images.shape[2:] == (4, 16))
    assert [wide.images[0, 0, :, at].mean().round() for at in (0, 8, -1)] == [255, 0, 128]


def test_every_seen_picture_is_in_the_bucket_nearest_to_it_alone(mixed):
    data = load(mixed)
    found = {part.images.shape[2:]: values(part) for part in data.buckets}
    assert sorted(found) == sorted(SHAPES)
    assert sorted(chain(*found.values())) == values(data)
    assert max(found[8, 8]) < 20 <= min(found[4, 16])
    assert max(found[4, 16]) < 30 <= min(found[16, 4])


def test_held_out_pictures_are_not_decoded_again(mixed):
    assert sum(len(part.images) for part in load(mixed).buckets[1:]) < 20


def test_how_many_there_are_of_each_shape_is_said(tmp_path):
    for number in range(4):
        save(tmp_path / f"{number}.png", (32, 8) if number else (16, 16))
    data = load(tmp_path, held_out=0)
    assert data.remark == "data: to train on, in width and height: 1 of 8 x 8, 3 of 16 x 4"


def test_digits_have_no_other_shapes():
    with pytest.raises(UserError, match=r"data.crop = buckets: the digits are of one shape"):
        load("digits")


def test_without_other_shapes_there_are_no_buckets(mixed):
    assert load(mixed, shapes=()).buckets == ()
    for file in [*mixed.glob("2?.png"), *mixed.glob("3?.png")]:
        file.unlink()
    assert load(mixed).buckets == ()


def test_a_shape_of_which_no_picture_is_seen_has_none(tmp_path):
    for number in range(4):
        save(tmp_path / f"wide-{number}.png", (32, 8))
    assert [part.images.shape[2:] for part in load(tmp_path).buckets] == [(4, 16)]


def test_batches_are_of_one_shape_and_draw_every_picture_as_often(mixed):
    data, random, drawn = load(mixed), torch.Generator().manual_seed(0), Counter()
    for _ in range(2000):
        images, _, _ = batch(of_one_shape(data, random), 4, random)
        drawn.update(((images[:, 0, 0, 0] + 1) * 127.5).round().int().tolist())
    assert sorted(drawn) == values(data)
    assert max(drawn.values()) < 1.4 * min(drawn.values())


def test_classes_and_captions_go_with_their_pictures(mixed):
    (mixed / "25.png").write_bytes(b"no picture")
    lines = [
        {"file_name": f"{kind}/{n:02}.png", "text": str(n)} for kind in "ab" for n in range(40)
    ]
    for kind in "ab":
        (mixed / kind).mkdir()
    for number in range(40):
        (mixed / f"{number:02}.png").rename(mixed / "ab"[number % 2] / f"{number:02}.png")
    (mixed / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    data = load(mixed, captioned=True, label_column="class")
    assert data.skipped == 1
    for part in data.buckets:
        shown = [int(part.images[row].flat[0]) for row in part.seen]
        assert [int(part.captions[row]) for row in part.seen] == shown
        assert [part.labels[row] for row in part.seen] == [number % 2 for number in shown]


def test_large_buckets_are_decoded_once_into_the_cache(mixed, monkeypatch):
    monkeypatch.setattr(decode, "LARGE", 1)
    first = load(mixed, cache=mixed / "cache")
    monkeypatch.setattr(decode, "_fill", None)  # a second decoding would fail
    second = load(mixed, cache=mixed / "cache")
    assert [values(part) for part in second.buckets] == [values(part) for part in first.buckets]


def test_other_pictures_of_a_shape_are_not_taken_from_the_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(decode, "LARGE", 1)
    save(tmp_path / "a.png", (30, 10), 1)
    save(tmp_path / "b.png", (50, 10), 2)
    # With one of these beside it, (4, 16) is nearest to the one picture, and then to the other.
    for other, expected in (((4, 12), [2]), ((4, 20), [1])):
        sizes = [(8, 8), (4, 16), other]
        found = load(tmp_path, shapes=sizes, cache=tmp_path / "cache", held_out=0)
        parts = {part.images.shape[2:]: values(part) for part in found.buckets}
        assert parts[4, 16] == expected


def test_a_data_set_of_the_hub_has_them_too(mixed, tmp_path_factory):
    rows = {"image": [str(file) for file in sorted(mixed.iterdir())]}
    folder = tmp_path_factory.mktemp("saved")
    table = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
    table.save_to_disk(str(folder))
    found = {part.images.shape[2:]: values(part) for part in load(folder).buckets}
    assert sorted(found) == sorted(SHAPES)
    assert max(found[4, 16]) < 30 <= min(found[16, 4])
