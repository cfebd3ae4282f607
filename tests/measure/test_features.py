import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from sklearn.datasets import load_sample_images
from torchmetrics.image.fid import FrechetInceptionDistance

from diffnas.data import load_data
from diffnas.errors import UserError
from diffnas.measure.features import DigitsFeatures, PatchFeatures, auto_features, features
from diffnas.measure.quality import quality

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def crops():
    """Crops of two photographs, uint8 (400, 3, 32, 32)."""
    photos = [photo[::4, ::4].transpose(2, 0, 1) for photo in load_sample_images().images]
    rng = np.random.default_rng(0)
    corners = rng.integers(0, (106 - 32, 160 - 32), (400, 2))
    cut = [photos[i % 2][:, y : y + 32, x : x + 32] for i, (y, x) in enumerate(corners)]
    return np.stack(cut).astype(np.uint8)


def blur(images, strength):
    return gaussian_filter(images, (0, 0, strength / 2, strength / 2))


def noise(images, strength):
    disturbed = images + np.random.default_rng(1).normal(0, 10 * strength, images.shape)
    return disturbed.clip(0, 255).astype(np.uint8)


def colour(images, strength):
    shift = np.array([10, 0, -10])[:, None, None] * strength
    return (images.astype(int) + shift).clip(0, 255).astype(np.uint8)


def shuffle(images, strength):
    """Cut the image into tiles and mix them: 2, 4, 8 a side."""
    tiles = 2**strength
    side = 32 // tiles
    cut = images.reshape(-1, 3, tiles, side, tiles, side).transpose(0, 2, 4, 1, 3, 5)
    cut = cut.reshape(len(images), tiles * tiles, 3, side, side)
    mixed = cut[:, np.random.default_rng(2).permutation(tiles * tiles)]
    mixed = mixed.reshape(-1, tiles, tiles, 3, side, side).transpose(0, 3, 1, 4, 2, 5)
    return mixed.reshape(images.shape)


@pytest.mark.parametrize("corrupt", [blur, noise, colour, shuffle])
def test_patch_distance_grows_with_each_corruption(crops, corrupt):
    real, reference = crops[:200], crops[200:]
    values = [quality(real, reference, "patches")["frechet_distance"]]
    values += [
        quality(corrupt(real, strength), reference, "patches")["frechet_distance"]
        for strength in (1, 2, 3)
    ]
    assert values == sorted(values)
    assert values[-1] > 1.5 * values[0]


@pytest.mark.parametrize("extractor", [DigitsFeatures, PatchFeatures])
@pytest.mark.parametrize("shape", [(5, 1, 8, 8), (5, 3, 8, 8), (5, 3, 33, 20)])
def test_feature_count_is_as_announced(extractor, shape):
    module = extractor()
    images = torch.from_numpy(RNG.integers(0, 256, shape, dtype=np.uint8))
    assert module(images).shape == (5, module.num_features)
    assert module.double()(images).dtype == torch.float64


def test_torchmetrics_takes_the_extractors_as_they_are():
    data = load_data("digits", size=(8, 8), channels=3)
    metric = FrechetInceptionDistance(feature=DigitsFeatures(), input_img_size=(3, 8, 8))
    metric.set_dtype(torch.float64)
    metric.update(torch.from_numpy(data.images[:300]), real=True)
    metric.update(torch.from_numpy(data.images[300:600]), real=False)
    assert metric.compute() > 0


def test_unknown_features_are_refused():
    with pytest.raises(UserError, match=r"^features: 'vgg'"):
        features("vgg")


def test_inception_without_its_extra_names_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="with its extra 'fid'"):
        features("inception")


def test_auto_stands_for_what_fits_the_data():
    assert auto_features("digits") == "digits"
    assert auto_features("photos") in ("patches", "inception")
