"""Which images are never trained on. Always the same for the same images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from diffnas.errors import UserError

SEED = 20231104  # constant, so that everyone holds out the same images


Enough = Callable[[int, int], None]
"""(seen, held out) -> None: told how many images there will be on each side; may refuse."""


def divide(
    count: int,
    labels: np.ndarray | None,
    groups: np.ndarray | None,
    *,
    by: str,
    held_out: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Seen and held-out indices (int64, sorted) of so many images.

    labels, groups: int (count,), classes and parent folders where known; by: 'file' or 'folder'.
    """
    if by == "folder":
        assert groups is not None  # of other data it is refused
        return split_groups(groups, held_out)
    return split(np.zeros(count, int) if labels is None else labels, held_out)


def split(classes: np.ndarray, held_out: float) -> tuple[np.ndarray, np.ndarray]:
    """Seen and held-out indices (int64, sorted), holding out the same share of every class.

    classes: int (N,); one constant value for a plain split.
    """
    rng = np.random.default_rng(SEED)
    out = np.zeros(len(classes), dtype=bool)
    for name in np.unique(classes):
        members = rng.permutation(np.flatnonzero(classes == name))
        out[members[: round(held_out * len(members))]] = True
    wanted = round(held_out * len(classes))
    if abs(int(out.sum()) - wanted) > wanted / 4:  # classes too small to share out one by one
        out[:] = False
        out[rng.permutation(len(classes))[:wanted]] = True
    if held_out > 0 and not out.any() and len(classes) > 1:
        out[rng.integers(len(classes))] = True
    return np.flatnonzero(~out), np.flatnonzero(out)


def split_groups(groups: np.ndarray, held_out: float) -> tuple[np.ndarray, np.ndarray]:
    """Seen and held-out indices (int64, sorted) that hold out whole groups, int (N,).

    Groups are added in a fixed random order until the share is met as nearly as they allow.
    """
    names, sizes = np.unique(groups, return_counts=True)
    if held_out > 0 and len(names) < 2:
        raise UserError("data.split_by: 'folder' needs images in two folders or more; use 'file'")
    order = np.random.default_rng(SEED).permutation(len(names))
    total = np.cumsum(sizes[order])
    count = int(np.abs(total - held_out * len(groups)).argmin()) + 1 if held_out > 0 else 0
    chosen = names[order[: min(count, len(names) - 1)]]
    out = np.isin(groups, chosen)
    return np.flatnonzero(~out), np.flatnonzero(out)
