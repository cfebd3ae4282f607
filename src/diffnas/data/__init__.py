"""Image data: loading, splitting, and batches that a seed fixes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffnas.data.augment import AUGMENTATIONS

SPLIT_SEED = 20231104  # constant, so that everyone holds out the same images


@dataclass(frozen=True)
class Data:
    """A set of images and its fixed split."""

    name: str  # 'digits', a folder, a hub id
    images: np.ndarray  # uint8 (N, C, H, W), possibly a memmap
    labels: np.ndarray | None  # int64 (N,)
    seen: np.ndarray  # int64 indices of the training part
    held_out: np.ndarray  # int64 indices, never trained on
    augment: str  # 'none' | 'flip' | 'digits'
    skipped: int = 0  # unreadable files


def split(groups: np.ndarray, held_out: float) -> tuple[np.ndarray, np.ndarray]:
    """Seen and held-out indices (int64, sorted), holding out a share of every group.

    groups: int (N,), for instance class labels; one constant value for a plain split.
    """
    rng = np.random.default_rng(SPLIT_SEED)
    out = np.zeros(len(groups), dtype=bool)
    for group in np.unique(groups):
        members = rng.permutation(np.flatnonzero(groups == group))
        out[members[: round(held_out * len(members))]] = True
    return np.flatnonzero(~out), np.flatnonzero(out)


def load_data(
    source: str,
    *,
    size: tuple[int, int],
    channels: int,
    held_out: float = 0.2,
    split_by: str = "file",
    augment: str = "auto",
    image_column: str | None = None,
    label_column: str | None = None,
    cache: Path | None = None,
    limit: int | None = None,
) -> Data:
    """Load 'digits'."""
    from diffnas.data.digits import load_digits

    images, labels = load_digits(size, channels)
    seen, out = split(labels, held_out)
    return Data(source, images, labels, seen, out, "digits" if augment == "auto" else augment)


def to_float(images: np.ndarray) -> Tensor:
    """uint8 (B, C, H, W) to float32 in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images)).float() / 127.5 - 1


def batch(
    data: Data, size: int, generator: torch.Generator
) -> tuple[Tensor, Tensor | None]:
    """Random seen images, augmented, float32 (size, C, H, W) in [-1, 1], and labels (size,).

    All randomness comes from the CPU generator, so that seeding it by (seed, stage, step) fixes
    the batch.
    """
    picks = data.seen[torch.randint(len(data.seen), (size,), generator=generator).numpy()]
    images = AUGMENTATIONS[data.augment](to_float(data.images[picks]), generator)
    return images, None if data.labels is None else torch.from_numpy(data.labels[picks])
