"""Memory of reading off the teacher's own graph which channels a narrower trunk keeps."""

from typing import Any

import torch

from diffnas.blocks import recorded
from diffnas.families import Teacher
from diffnas.forecast.activations import saved_bytes
from diffnas.measure.memory import stored_bytes
from diffnas.measure.meta import FusedKernels
from diffnas.trunk import ranked_at_once


def ranking_bytes(teacher: Teacher, meta: Any, macs: int, batch_size: int) -> int:
    """Beside weights: the graph of as many images as go through together, and all gradients asked.

    ``meta``: the teacher's denoiser without data, of so many ``macs``. The only graph of the whole
    teacher with all that lies between its layers.
    """
    assert teacher.family.streams is not None
    ports = teacher.family.streams(meta)
    writers = [path for path, each in ports.items() if each.writes is not None]
    inputs = teacher.family.example_inputs(meta, 1, torch.device("meta"))
    with torch.no_grad(), FusedKernels(), recorded(meta, writers) as calls:
        meta(**inputs)
    gradients = stored_bytes([calls[path].made for path in writers])
    return ranked_at_once(macs, batch_size) * (saved_bytes(meta, (), inputs) + gradients)
