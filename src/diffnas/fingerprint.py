"""Short names for content: what was made from the same things has the same fingerprint."""

import hashlib
import json
from typing import Any

import numpy as np

from diffnas.data import Data
from diffnas.families import Teacher

HASHED = 2**28
"""Bytes of images that are hashed whole; of larger sets, evenly spread images of that size."""


def fingerprint(*parts: Any) -> str:
    """16 hex digits of plain values (JSON's, tuples, paths)."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def of_teacher(teacher: Teacher) -> str:
    """Of a teacher's configs and weights."""
    digest = hashlib.sha256()
    for name, value in sorted(teacher.denoiser.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).numpy().tobytes())
    denoiser: Any = teacher.denoiser
    configs = [_public(denoiser.config), _public(teacher.pipeline.scheduler.config)]
    return fingerprint(digest.hexdigest(), configs)


def of_data(data: Data) -> str:
    """Of a data set's images, split and augmentation."""
    count = max(1, min(len(data.images), HASHED // max(1, data.images[0].nbytes)))
    probes = np.unique(np.linspace(0, len(data.images) - 1, count).astype(int))
    digest = hashlib.sha256()
    for start in range(0, len(probes), 1024):
        digest.update(np.ascontiguousarray(data.images[probes[start : start + 1024]]).tobytes())
    digest.update(data.seen.tobytes())
    if data.labels is not None:
        digest.update(data.labels.tobytes())
    return fingerprint(digest.hexdigest(), data.images.shape, data.augment)


def _public(config: Any) -> dict[str, Any]:
    """Without diffusers' notes of where a config came from and which version wrote it."""
    return {key: value for key, value in dict(config).items() if not key.startswith("_")}
