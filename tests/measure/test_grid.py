import numpy as np
import pytest

from diffnas.measure.grid import GAP, LEAST_SIDE, grid, side_by_side


def images(count: int, channels: int = 1, side: int = 8) -> np.ndarray:
    """Image i is plain, of brightness i."""
    levels = np.arange(count, dtype=np.uint8)[:, None, None, None]
    return np.broadcast_to(levels, (count, channels, side, side))


def test_images_stand_row_by_row() -> None:
    picture = np.asarray(grid(images(6), columns=3, scale=1))
    assert picture.shape == (2 * 8 + 3 * GAP, 3 * 8 + 4 * GAP, 3)
    middles = [GAP + 4 + k * (8 + GAP) for k in range(3)]
    assert [[picture[y, x, 0] for x in middles] for y in middles[:2]] == [[0, 1, 2], [3, 4, 5]]


def test_a_square_number_makes_a_square() -> None:
    picture = grid(images(9))
    assert picture.width == picture.height


def test_tiny_images_are_enlarged_to_visible_pixels() -> None:
    checker = np.indices((8, 8)).sum(axis=0)[None, None] % 2 * np.uint8(255)
    picture = np.asarray(grid(checker.astype(np.uint8)))[GAP:-GAP, GAP:-GAP, 0]
    assert picture.shape == (LEAST_SIDE, LEAST_SIDE)
    assert np.array_equal(picture[2::4, 2::4], checker[0, 0])
    assert set(np.unique(picture)) == {0, 255}


def test_large_images_keep_their_size() -> None:
    assert grid(images(1, side=40)).width == 40 + 2 * GAP


def test_colours_are_kept() -> None:
    red = np.zeros((1, 3, 8, 8), np.uint8)
    red[:, 0] = 200
    assert grid(red).getpixel((GAP + 1, GAP + 1)) == (200, 0, 0)


@pytest.mark.parametrize("shape", [(0, 1, 8, 8), (2, 4, 8, 8), (8, 8)])
def test_what_is_no_set_of_images_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="shape"):
        grid(np.zeros(shape, np.uint8))


def test_the_same_place_holds_the_same_seed_on_both_sides() -> None:
    picture = np.asarray(side_by_side(images(4), images(4) + np.uint8(100)))
    one = np.asarray(grid(images(4)))
    other = np.asarray(grid(images(4) + np.uint8(100)))
    height, width, _ = one.shape
    assert np.array_equal(picture[-height:, :width], one)
    assert np.array_equal(picture[-height:, -width:], other)


def test_titles_are_drawn_above() -> None:
    plain, titled = (
        np.asarray(side_by_side(images(4), images(4), titles))
        for titles in ((" ", " "), ("a", "b"))
    )
    top = titled.shape[0] - grid(images(4)).height
    assert (titled[:top] < 128).any()
    assert not (plain[: -grid(images(4)).height] < 128).any()


def test_a_long_title_is_not_cut() -> None:
    narrow, wide = (
        side_by_side(images(1), images(1), (title, "b")).width for title in ("a", "a" * 60)
    )
    assert wide > narrow + 200
