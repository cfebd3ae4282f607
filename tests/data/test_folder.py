import errno
import os

import numpy as np
import pytest
from PIL import Image

from diffnas.data import decode, load_data
from diffnas.data.folder import image_files
from diffnas.errors import RunError, UserError
from diffnas.progress import Progress


def save(path, mode="RGB", size=(12, 10), colour=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path, **options)


def load(folder, **settings):
    return load_data(str(folder), **({"size": (8, 8), "channels": 3} | settings))


def test_nested_mixed_pictures_become_one_array_in_path_order(tmp_path):
    save(tmp_path / "b.png", colour=(10, 20, 30))
    save(tmp_path / "a" / "deep" / "x.bmp", "L", (30, 9), 200)
    save(tmp_path / "c.JPG", size=(8, 40), colour=(90, 90, 90))
    (tmp_path / "notes.txt").write_text("no picture")
    images = load(tmp_path).images
    assert images.shape == (3, 3, 8, 8)
    assert images[0].tolist() == np.full((3, 8, 8), 200).tolist()
    assert images[1, :, 0, 0].tolist() == [10, 20, 30]


def test_one_channel_turns_colour_to_grey(tmp_path):
    save(tmp_path / "a.png", colour=(255, 0, 0))
    save(tmp_path / "b.png", "L", colour=7)
    assert load(tmp_path, channels=1).images[:, 0, 0, 0].tolist() == [76, 7]


def test_transparent_parts_become_white(tmp_path):
    save(tmp_path / "a.png", "RGBA", colour=(0, 0, 0, 0))
    assert load(tmp_path).images.min() == 255


def test_sixteen_bit_grey_keeps_its_range(tmp_path):
    Image.fromarray(np.full((9, 9), 32768, np.uint16)).save(tmp_path / "a.png")
    assert load(tmp_path, channels=1).images[0, 0, 0, 0] == 128


def test_pictures_are_turned_upright_by_their_exif(tmp_path):
    array = np.zeros((8, 8, 3), np.uint8)
    array[:4] = 255  # the upper half is white
    exif = Image.Exif()
    exif[0x0112] = 3  # taken upside down
    Image.fromarray(array).save(tmp_path / "a.png", exif=exif)
    image = load(tmp_path).images[0, 0]
    assert image[0].max() < 128 < image[-1].min()


def test_centre_is_cropped_to_the_wanted_shape(tmp_path):
    array = np.zeros((8, 24), np.uint8)
    array[:, 8:16] = 255
    Image.fromarray(array).save(tmp_path / "a.png")
    assert load(tmp_path, channels=1).images.min() == 255


def test_height_comes_before_width(tmp_path):
    save(tmp_path / "a.png")
    assert load(tmp_path, size=(16, 8)).images.shape == (1, 3, 16, 8)


def test_unreadable_files_are_skipped_and_counted(tmp_path):
    save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"not a picture")
    (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:40])
    data = load(tmp_path)
    assert (len(data.images), data.skipped) == (1, 2)


@pytest.mark.parametrize("error", [AttributeError, TypeError, SyntaxError])
def test_whatever_pillow_raises_on_a_broken_file_the_file_is_skipped(tmp_path, monkeypatch, error):
    save(tmp_path / "good.png")
    save(tmp_path / "odd.png")
    opened = Image.open

    def fail(path):
        if path.name == "odd.png":
            raise error("broken")
        return opened(path)

    monkeypatch.setattr(Image, "open", fail)
    assert load(tmp_path).skipped == 1


@pytest.mark.parametrize("error", [AttributeError, TypeError])
def test_a_mistake_of_ours_is_no_unreadable_file(tmp_path, monkeypatch, error):
    def fail(*_, **__):
        raise error("not in this version of Pillow")

    save(tmp_path / "good.png")
    monkeypatch.setattr(decode.ImageOps, "fit", fail)
    with pytest.raises(error, match="not in this version"):
        load(tmp_path)


def test_a_picture_that_cannot_be_converted_is_skipped(tmp_path):
    save(tmp_path / "good.png")
    values = np.full((9, 9), np.nan, np.float32)
    Image.fromarray(values).save(tmp_path / "nan.tiff")
    assert load(tmp_path).skipped == 1


@pytest.mark.parametrize("large", [1, 2**26])
def test_progress_counts_the_decoded_pictures(tmp_path, monkeypatch, large):
    class Heard(Progress):
        def __init__(self):
            self.lines = []

        def start(self, stage, total, done=0):
            self.lines.append((stage, total))

        def update(self, done, **figures):
            self.lines.append(done)

        def stop(self):
            self.lines.append("stop")

    monkeypatch.setattr(decode, "LARGE", large)
    pictures = tmp_path / "pictures"
    save(pictures / "a.png")
    (pictures / "bad.png").write_bytes(b"not a picture")
    load(pictures, cache=tmp_path / "cache", progress=(heard := Heard()))
    assert heard.lines == [("decode", 2), 1, 2, "stop"]


def test_nothing_readable_is_an_error(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"not a picture")
    with pytest.raises(UserError, match="none of the 1 images"):
        load(tmp_path)


def test_empty_folder_is_an_error(tmp_path):
    with pytest.raises(UserError, match="no images in"):
        load(tmp_path)


def test_missing_folder_is_an_error(tmp_path):
    with pytest.raises(UserError, match="there is no folder"):
        load(tmp_path / "gone")


@pytest.mark.parametrize("source", ["gone/", "./gone", "a/b/gone"])
def test_what_is_written_as_a_path_is_not_looked_for_on_the_hub(source):
    with pytest.raises(UserError, match=rf"^data: there is no folder '{source}'"):
        load(source)


def test_a_file_is_no_folder(tmp_path):
    save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"^data: '.*a\.png' is a file; give the folder"):
        load(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("settings", "sides"),
    [
        ({}, (7, 2)),
        ({"limit": 5}, (4, 1)),
        ({"label_column": "class", "held_out": 0.3}, (6, 3)),
    ],
)
def test_how_many_images_will_be_on_each_side_is_told_before_any_is_decoded(
    tmp_path, monkeypatch, settings, sides
):
    for index in range(9):
        save(tmp_path / "abc"[index // 3] / f"{index}.png")
    told = []
    data = load(tmp_path, enough=lambda *counts: told.append(counts), **settings)
    assert told == [(len(data.seen), len(data.held_out))] == [sides]

    def enough(*_):
        raise UserError("too few")

    monkeypatch.setattr(decode, "_fill", None)  # decoding would fail otherwise
    with pytest.raises(UserError, match="too few"):
        load(tmp_path, enough=enough, **settings)


def test_which_folders_are_held_out_hangs_on_pictures_that_can_be_read(tmp_path):
    for index in range(9):
        save(tmp_path / "abc"[index // 3] / f"{index}.png")
    told = []
    load(tmp_path, split_by="folder", enough=lambda *counts: told.append(counts))
    assert told == []


def test_whole_folders_are_held_out_when_split_by_folder(tmp_path):
    for photo in range(10):
        for crop in range(3):
            save(tmp_path / f"{photo}" / f"{crop}.png", "L", colour=photo)
    data = load(tmp_path, channels=1, split_by="folder")
    photos = data.images[:, 0, 0, 0]
    assert len(data.held_out) == 6
    assert not set(photos[data.seen]) & set(photos[data.held_out])


def test_one_folder_cannot_be_split_by_folder(tmp_path):
    save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"^data.split_by: "):
        load(tmp_path, split_by="folder")


def test_labels_are_top_level_folders_only_when_asked_for(tmp_path):
    for name in ("cat", "dog"):
        save(tmp_path / name / "inner" / "a.png")
    assert load(tmp_path).labels is None
    assert load(tmp_path, label_column="folder").labels.tolist() == [0, 1]


def test_classes_are_numbered_by_all_top_level_folders(tmp_path):
    for name in ("a-unreadable", "b-empty", ".hidden", "c", "d"):
        (tmp_path / name).mkdir()
    (tmp_path / "a-unreadable" / "bad.png").write_bytes(b"not a picture")
    for index in range(9):
        save(tmp_path / "c" / f"{index}.png", "L", colour=2)
        save(tmp_path / "d" / f"{index}.png", "L", colour=3)
    for limit in (None, 12, 1):
        data = load(tmp_path, channels=1, label_column="folder", limit=limit)
        assert data.labels.tolist() == data.images[:, 0, 0, 0].tolist()


def test_class_folders_named_by_whole_numbers_keep_them(tmp_path):
    for name in ("2", "10", "7"):
        save(tmp_path / name / "a.png")
    assert load(tmp_path, label_column="folder").labels.tolist() == [10, 2, 7]


@pytest.mark.parametrize("parts", [("train",), ("train", "val"), ("photos",)])
def test_a_folder_that_holds_the_class_folders_is_not_taken_for_a_class(tmp_path, parts):
    for part in parts:
        for name in ("ant", "bee"):
            save(tmp_path / part / name / "a.png")
    with pytest.raises(UserError, match=rf"would be one class; .* give '.*/{parts[0]}'"):
        load(tmp_path, label_column="folder")


def test_a_loose_picture_has_no_class_whatever_the_limit(tmp_path):
    save(tmp_path / "loose.png")
    for index in range(9):
        save(tmp_path / "cat" / f"{index}.png")
    with pytest.raises(UserError, match=r"'loose\.png' lies in no class folder"):
        load(tmp_path, label_column="folder", limit=1)


def test_small_sets_still_hold_something_out(tmp_path):
    for index in range(2):
        save(tmp_path / f"{index}.png")
    data = load(tmp_path)
    assert (len(data.seen), len(data.held_out)) == (1, 1)


def test_limit_bounds_the_count(tmp_path):
    for index in range(9):
        save(tmp_path / f"{index}.png")
    assert len(load(tmp_path, limit=4).images) == 4


def test_large_sets_are_decoded_once_into_the_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(decode, "LARGE", 1)
    pictures, cache = tmp_path / "pictures", tmp_path / "cache"
    save(pictures / "a.png", colour=(1, 2, 3))
    (pictures / "b.png").write_bytes(b"not a picture")
    first = load(pictures, cache=cache)
    monkeypatch.setattr(decode, "_fill", None)  # a second decoding would fail
    second = load(pictures, cache=cache)
    assert isinstance(second.images, np.memmap)
    assert np.array_equal(first.images, second.images)
    assert second.skipped == 1
    assert len(list(cache.iterdir())) == 3


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """A folder with one picture in (1, 2, 3), its cache, and the cached images' file."""
    monkeypatch.setattr(decode, "LARGE", 1)
    pictures, cache = tmp_path / "pictures", tmp_path / "cache"
    save(pictures / "a.png", colour=(1, 2, 3))
    load(pictures, cache=cache)
    (file,) = (file for file in cache.iterdir() if len(file.suffixes) == 1)
    return pictures, cache, file


@pytest.mark.parametrize("length", [0, 5, 130, -1])
@pytest.mark.parametrize("damaged", ["images", "kept", "ratios"])
def test_a_damaged_cache_is_made_again(cached, damaged, length):
    pictures, cache, file = cached
    hurt = file if damaged == "images" else file.with_suffix(f".{damaged}.npy")
    hurt.write_bytes(hurt.read_bytes()[:length])
    assert load(pictures, cache=cache).images[0, :, 0, 0].tolist() == [1, 2, 3]


def test_a_disk_too_full_for_the_cache_is_said_before_decoding(cached, monkeypatch):
    pictures, cache, file = cached
    file.unlink()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(decode.os, "posix_fallocate", full, raising=False)
    monkeypatch.setattr(decode, "_fill", None)  # decoding would fail otherwise
    with pytest.raises(RunError, match="no space left on the disk"):
        load(pictures, cache=cache)


def test_a_file_system_that_cannot_allocate_is_written_to_all_the_same(cached, monkeypatch):
    pictures, cache, file = cached
    file.unlink()

    def cannot(*_):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(decode.os, "posix_fallocate", cannot, raising=False)
    assert len(load(pictures, cache=cache).images) == 1


def test_what_a_killed_run_left_of_the_cache_goes_even_where_the_cache_is_whole(cached):
    pictures, cache, file = cached
    left = cache / f".{file.name}.abc.part"
    left.write_bytes(b"half")
    os.utime(left, (0, 0))
    load(pictures, cache=cache)
    assert not left.exists()


def test_cache_notices_changed_files(tmp_path, monkeypatch):
    monkeypatch.setattr(decode, "LARGE", 1)
    pictures, cache = tmp_path / "pictures", tmp_path / "cache"
    save(pictures / "a.png", "L", colour=1)
    load(pictures, cache=cache)
    save(pictures / "b.png", "L", colour=2)
    assert len(load(pictures, cache=cache).images) == 2


def test_links_to_folders_are_followed_but_not_in_circles(tmp_path):
    elsewhere, photos = tmp_path / "elsewhere", tmp_path / "photos"
    for folder in (elsewhere, photos / "cat"):
        folder.mkdir(parents=True)
        save(folder / "a.png")
    (photos / "dog").symlink_to(elsewhere)
    (photos / "cat" / "again").symlink_to(photos)
    (elsewhere / "back").symlink_to(photos / "cat")
    (photos / "cat" / "forth").symlink_to(elsewhere)
    found = [file.as_posix() for file in image_files(photos)]
    assert found == ["cat/a.png", "cat/forth/a.png", "dog/a.png", "dog/back/a.png"]
    assert load(photos, label_column="class").labels.tolist() == [0, 0, 1, 1]


def test_a_folder_that_may_not_be_read_is_refused_and_not_left_out(tmp_path, monkeypatch):
    save(tmp_path / "a.png")
    save(tmp_path / "private" / "b.png")
    scandir = os.scandir

    def forbid(path):
        if os.path.basename(path) == "private":
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", forbid)
    with pytest.raises(UserError, match=r"^data: the folder .*private' is not readable"):
        image_files(tmp_path)
