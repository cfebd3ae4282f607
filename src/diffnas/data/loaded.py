"""What a source of images gives, before it is split."""

from dataclasses import dataclass

import numpy as np

from diffnas.data.buckets import Bucket


@dataclass(frozen=True)
class Loaded:
    """Images uint8 (N, C, H, W) and what is known of each.

    ``labels``, ``groups``: int64 (N,), classes and parent folders; ``captions``: a text each; None
    where not asked for or not there. ``skipped``: how many could not be read. ``buckets``: those
    nearer to another shape, again in that one, where asked for.
    """

    images: np.ndarray
    labels: np.ndarray | None = None
    captions: tuple[str, ...] | None = None
    groups: np.ndarray | None = None
    skipped: int = 0
    buckets: tuple[Bucket, ...] = ()
