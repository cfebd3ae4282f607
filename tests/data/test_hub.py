import zipfile

import datasets
import numpy as np
import pytest
from datasets.exceptions import DatasetsError
from huggingface_hub.errors import HTTPError
from PIL import Image

from diffnas.data import load_data
from diffnas.errors import UserError


@pytest.fixture(autouse=True)
def no_sleep(monkeypatch):
    """datasets waits for its threads' end, seconds after every stream."""
    monkeypatch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0)


def saved(folder, **columns):
    datasets.Dataset.from_dict(columns).save_to_disk(folder)
    return str(folder)


def pictures(count):
    return [Image.new("L", (9, 12), 10 * i) for i in range(count)]


def load(source, **settings):
    return load_data(source, **({"size": (8, 8), "channels": 1} | settings))


def test_image_column_is_found(tmp_path):
    data = load(saved(tmp_path, caption=["a", "b", "c"], photo=pictures(3)))
    assert data.images[:, 0, 0, 0].tolist() == [0, 10, 20]
    assert data.labels is None


def test_labels_of_words_are_numbered(tmp_path):
    source = saved(tmp_path, photo=pictures(3), kind=["b", "a", "b"])
    assert load(source, label_column="kind").labels.tolist() == [1, 0, 1]


def test_whole_numbers_kept_as_fractions_are_the_labels(tmp_path):
    source = saved(tmp_path, photo=pictures(3), kind=[3.0, 7.0, 3.0])
    assert load(source, label_column="kind").labels.tolist() == [3, 7, 3]


def test_a_label_that_is_no_number_is_refused(tmp_path):
    source = saved(tmp_path, photo=pictures(2), kind=[3.0, float("nan")])
    with pytest.raises(UserError, match="not one value an image"):
        load(source, label_column="kind")


def test_a_table_beside_images_does_not_make_a_data_set_of_their_folder(tmp_path):
    for number, image in enumerate(pictures(2)):
        image.save(tmp_path / f"{number}.png")
    datasets.Dataset.from_dict({"url": ["a", "b"]}).to_parquet(tmp_path / "00000.parquet")
    assert load(str(tmp_path)).images[:, 0, 0, 0].tolist() == [0, 10]


def test_labels_of_words_are_numbered_by_the_whole_column(tmp_path):
    kinds = ["d", "c", "b", "a"] * 5
    photos = [Image.new("L", (8, 8), "abcd".index(kind)) for kind in kinds]
    source = saved(tmp_path, photo=photos, kind=kinds)
    data = load(source, label_column="kind", limit=2)
    assert data.labels.tolist() == data.images[:, 0, 0, 0].tolist()
    assert set(data.labels.tolist()) != {0, 1}


def test_how_many_images_will_be_on_each_side_is_told_before_any_is_decoded(tmp_path):
    told = []
    source = saved(tmp_path, photo=pictures(10), kind=["a", "b"] * 5)
    data = load(source, label_column="kind", limit=8, enough=lambda *counts: told.append(counts))
    assert told == [(len(data.seen), len(data.held_out))] == [(6, 2)]


def test_training_split_of_several_is_used(tmp_path):
    parts = {
        name: datasets.Dataset.from_dict({"photo": pictures(count)})
        for name, count in (("test", 2), ("train", 3))
    }
    datasets.DatasetDict(parts).save_to_disk(tmp_path)
    assert len(load(str(tmp_path)).images) == 3


def test_folder_of_tables_is_read(tmp_path):
    table = datasets.Dataset.from_dict({"photo": pictures(3)})
    table.to_parquet(tmp_path / "train.parquet")
    assert len(load(str(tmp_path)).images) == 3


def test_two_image_columns_must_be_told_apart(tmp_path):
    source = saved(tmp_path, left=pictures(2), right=pictures(2)[::-1])
    with pytest.raises(UserError, match="name one of left, right"):
        load(source)
    assert load(source, image_column="right").images[0, 0, 0, 0] == 10


@pytest.mark.parametrize("setting", ["image_column", "label_column"])
def test_missing_column_is_an_error_that_lists_the_columns(tmp_path, setting):
    with pytest.raises(UserError, match=f"^data.{setting}: .*its columns are photo"):
        load(saved(tmp_path, photo=pictures(2)), **{setting: "gone"})


def test_column_without_images_is_an_error(tmp_path):
    source = saved(tmp_path, number=[1, 2])
    with pytest.raises(UserError, match=r"^data.image_column: "):
        load(source, image_column="number")


@pytest.mark.parametrize(
    "error", [ConnectionError, HTTPError, DatasetsError, zipfile.BadZipFile, RuntimeError]
)
def test_what_fails_on_the_hub_is_one_line_for_the_user(monkeypatch, error):
    def refuse(*_, **__):
        raise error("no route to host\nand much more")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(UserError, match=r"someone/photos.*no route to host\)") as caught:
        load("someone/photos")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mark", ["state.json", "dataset_dict.json", "train.parquet"])
def test_a_damaged_local_data_set_is_not_taken_for_one_of_the_hub(tmp_path, mark):
    (tmp_path / mark).write_text("none")
    with pytest.raises(UserError, match="holds a data set that cannot be read") as caught:
        load(str(tmp_path))
    assert str(tmp_path) in str(caught.value)
    assert "Hub" not in str(caught.value)


def test_a_card_that_cannot_be_read_is_a_damaged_data_set(tmp_path):
    datasets.Dataset.from_dict({"photo": pictures(3)}).to_parquet(tmp_path / "train.parquet")
    (tmp_path / "README.md").write_text("---\nconfigs: [a: b\n---\n")
    with pytest.raises(UserError, match="holds a data set that cannot be read"):
        load(str(tmp_path))


def test_rows_without_a_picture_are_skipped_and_counted(tmp_path):
    table = datasets.Dataset.from_dict({"photo": [*pictures(2), None]})
    table.save_to_disk(tmp_path)
    data = load(str(tmp_path))
    assert (len(data.images), data.skipped) == (2, 1)


def test_limit_spreads_over_the_set_in_order(tmp_path):
    data = load(saved(tmp_path, photo=pictures(20)), limit=5)
    values = data.images[:, 0, 0, 0].astype(int)
    assert len(values) == 5
    assert np.all(np.diff(values) > 0)


def tables(folder, count=25, **columns):
    """A data set as the Hub has it, of tables."""
    given = {"photo": pictures(count), "number": list(range(count)), **columns}
    datasets.Dataset.from_dict(given).to_parquet(folder / "train.parquet")
    return str(folder)


def test_of_a_stream_as_many_rows_are_read_as_are_wanted(tmp_path):
    source = tables(tmp_path, text=[f"grey {i}" for i in range(25)])
    data = load(source, limit=5, streaming=True, label_column="number", captioned=True)
    assert len(data.images) == 5
    assert data.images[:, 0, 0, 0].tolist() == [10 * number for number in data.labels]
    assert list(data.captions) == [f"grey {number}" for number in data.labels]


def test_a_streams_rows_are_kept_and_not_fetched_again(tmp_path, monkeypatch):
    (tmp_path / "hub").mkdir()
    source, cache = tables(tmp_path / "hub"), tmp_path / "cache"
    first = load(source, limit=5, streaming=True, cache=cache)
    monkeypatch.setattr(datasets.Dataset, "from_generator", None)
    again = load(source, limit=5, streaming=True, cache=cache)
    assert np.array_equal(again.images, first.images)


def test_a_streams_rows_are_read_again_once_its_files_have_changed(tmp_path):
    (tmp_path / "hub").mkdir()
    source, cache = tables(tmp_path / "hub"), tmp_path / "cache"
    load(source, limit=5, streaming=True, cache=cache)
    tables(tmp_path / "hub", number=[100] * 25)
    again = load(source, limit=5, streaming=True, cache=cache, label_column="number")
    assert again.labels.tolist() == [100] * 5


def test_a_stream_needs_to_know_how_much(tmp_path):
    with pytest.raises(UserError, match=r"^data.streaming: needs data.limit; "):
        load(tables(tmp_path), streaming=True)


def test_words_of_a_stream_have_no_numbers(tmp_path):
    source = tables(tmp_path, kind=["a"] * 25)
    with pytest.raises(
        UserError, match=r"^data.label_column: 'kind' holds words, .* data.streaming"
    ):
        load(source, limit=5, streaming=True, label_column="kind")
