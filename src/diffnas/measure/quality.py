"""Distances between generated and real images, through torchmetrics.

Images are uint8 arrays (N, C, H, W). Everything here is deterministic: features in float64, and
the kernel distance's subsets drawn from a constant seed.
"""

from __future__ import annotations

import warnings
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from diffnas.errors import UserError
from diffnas.measure import features as extractors
from diffnas.measure.references import Images, Picked, parts

KERNEL_SUBSETS = 50
KERNEL_SUBSET_SIZE = 1000
KNOWN_REFERENCES = 8  # sets of them whose features are kept


def quality(
    generated: Images | Picked,
    reference: Images | Picked,
    features: str,
    *,
    device: str = "cpu",
) -> dict[str, float]:
    """Fréchet and (unbiased) kernel distance of generated to reference images.

    Both are biased or noisy at small counts: compare only values of equal counts, and give the
    distance of real to real images of those counts beside them.

    Raises:
        UserError: no more images of either kind than features.
    """
    used = extractors.features(features)
    for name, count in (("generated", len(generated)), ("reference", len(reference))):
        if count < used.least_images:
            raise UserError(
                f"quality: {count} {name} images are too few for {used.words}; "
                f"use at least {used.least_images} or other features"
            )
    if not isinstance(reference, Picked):
        reference = Picked(reference, np.arange(len(reference)))
    real = _reference_features(reference, features, device)
    fake = extract(generated, features, device)
    # The metrics get features instead of images, so that each image is looked at once.
    given = _Given(real.shape[1])
    frechet = FrechetInceptionDistance(feature=given)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*save all extracted features.*")
        kernel = KernelInceptionDistance(
            feature=given,
            subsets=KERNEL_SUBSETS,
            subset_size=min(len(real), len(fake), KERNEL_SUBSET_SIZE),
        )
    for metric in (frechet, kernel):
        metric.update(real, real=True)
        metric.update(fake, real=False)
    with torch.random.fork_rng(devices=[]):  # the subsets come from torch's global generator
        torch.manual_seed(0)
        return {
            "frechet_distance": max(frechet.compute().item(), 0.0),
            "kernel_distance": kernel.compute()[0].item(),
        }


def extract(images: Images | Picked, features: str, device: str = "cpu") -> Tensor:
    """float64 features (N, d) of uint8 images (N, C, H, W), on the CPU."""
    module = _extractor(features).to(device)
    found = []
    with torch.no_grad():
        for part in map(torch.from_numpy, parts(images)):
            grey = part.shape[1] == 1
            given = part.repeat(1, 3, 1, 1) if features == "inception" and grey else part
            found.append(module(given.to(device)).double().cpu())
    return torch.cat(found)


def nearest_distance(generated: Images, seen: Images) -> float:
    """Mean over generated images of the RMS pixel distance to the nearest seen one, in 0..1.

    Much less than the same for held-out images means that the model copies its data.
    """
    bank = _flat(seen)
    return float(
        torch.cat([torch.cdist(_flat(part), bank).amin(dim=1) for part in parts(generated)]).mean()
        / bank.shape[1] ** 0.5
    )


def _flat(images: Images) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(images)).float().flatten(1) / 255


@lru_cache(maxsize=4)
def _extractor(features: str) -> nn.Module:
    module = extractors.features(features).extractor()
    # Inception stays float32: its resizing is defined so.
    return module if features == "inception" else module.double()


_known: dict[tuple[object, ...], Tensor] = {}
"""Features of the references last looked at: of these only, as the images would fill the memory."""


def _reference_features(images: Picked, features: str, device: str) -> Tensor:
    key = (images.shape, images.content, features, device)
    _known[key] = _known.pop(key) if key in _known else extract(images, features, device)
    if len(_known) > KNOWN_REFERENCES:
        del _known[next(iter(_known))]  # the one not asked for the longest
    return _known[key]


class _Given(nn.Module):
    """Tells torchmetrics that its input is features already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features
