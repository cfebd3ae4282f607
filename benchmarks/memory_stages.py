"""What `memory.py` measures: each stage of a run, a function each."""

from __future__ import annotations

import ctypes
import gc
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from gpu_rows import noise
from memory_models import MODELS
from torch import nn

from diffnas import trunk
from diffnas.architecture import Architecture, Space
from diffnas.budget import parse_budget
from diffnas.data import Data
from diffnas.defaults import resolve_for
from diffnas.effects import output_errors
from diffnas.embeddings import PART, with_embeddings
from diffnas.families import Teacher
from diffnas.families.teaching import teaching
from diffnas.forecast.memory import stage_bytes
from diffnas.latents import with_latents
from diffnas.retrain import Retraining
from diffnas.scoring import score
from diffnas.settings import Settings, parse
from diffnas.student.edited import edited
from diffnas.student.modeling import trunk_groups
from diffnas.supernet import Supernet
from diffnas.supernet_training import BlockTraining, groups
from diffnas.trunk import Trunk, kept_channels, make_trunk, ranked_at_once, widths
from diffnas.trunk_width import space_for

M_MMAP_THRESHOLD = -3
"""glibc's name for it: larger pieces go back to the system as soon as they are free."""

STEPS = 2
IMAGES = 64


@dataclass(frozen=True)
class Work:
    """What a stage works on."""

    teacher: Teacher
    data: Data
    space: Space
    settings: Settings
    folder: Path

    def trunk(self) -> Trunk | None:
        """The first channels of every stream; which ones makes no difference here."""
        if self.space.trunk is None:
            return None
        groups, of = self.space.trunk[0], trunk_groups(self.teacher.denoiser)
        assert self.teacher.family.streams is not None
        every = widths(self.teacher.denoiser, self.teacher.family.streams(self.teacher.denoiser))
        kept = {stream: torch.arange(width * groups // of) for stream, width in every.items()}
        return make_trunk(self.teacher, kept)

    def supernet(self) -> Supernet:
        """Untrained."""
        return Supernet(self.teacher, self.space, self.trunk())


@cache
def searched(model: str, *, quick: bool) -> tuple[Space, Settings]:
    """A model's space, few subnets of it, and settings without gaps."""
    chosen = MODELS[model]
    teacher = (chosen.small if quick else chosen.make)()
    size = 4 if quick else chosen.batch_size
    given: dict[str, dict[str, Any]] = {
        "space": {"max_subnets": 16, **({} if chosen.trunk else {"trunk": 1})},
        "supernet": {"batch_size": size},
        "score": {"batch_size": size, "images": size, "output_images": size, "candidates": 3},
        "retrain": {"batch_size": size},
        "evaluate": {"samples": max(16, size), "batch_size": size, "sampler_steps": STEPS},
    }
    for section, saving in chosen.saving.items():
        given[section] |= saving
    whole = {"max_steps": STEPS, "teacher_precision": chosen.teacher_precision}
    settings = parse({**given, **whole})
    settings, space, _ = space_for(
        settings, teacher.denoiser, teacher.family, parse_budget(macs=0.5)
    )
    return space, resolve_for(teacher, settings)[0]


def work(model: str, device: str, folder: Path, *, quick: bool) -> Work:
    """A model on the device, and random images."""
    chosen = MODELS[model]
    torch.manual_seed(0)
    teacher = (chosen.small if quick else chosen.make)()
    for part in vars(teacher.pipeline).values():
        if isinstance(part, nn.Module):
            part.eval().requires_grad_(False)
    teacher.denoiser.to(device)
    return Work(teacher, noise(teacher), *searched(model, quick=quick), folder)


def images(this: Work) -> Data:
    """Pixels of the teacher's shape, each with a caption of its own."""
    shape = (IMAGES, *this.teacher.image_shape)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    rows = np.arange(IMAGES)
    captions = tuple(f"red square {row}" for row in range(2 * PART))
    return Data("noise", pixels, None, rows, rows, "none", captions=captions)


def captions(this: Work) -> None:
    with_embeddings(this.teacher, images(this), this.folder)


def encode(this: Work) -> None:
    with_latents(this.teacher, images(this), this.folder)


def supernet(this: Work) -> None:
    size, given = this.settings.supernet.batch_size, this.settings.supernet
    assert size is not None
    if this.space.trunk is not None:
        ranked = ranked_at_once(this.space.teacher.macs, size)
        with patch.object(trunk, "IMAGES", STEPS * ranked):
            kept_channels(this.teacher, this.data, this.space.trunk[0], batch_size=ranked, seed=0)
    net = this.supernet()
    for names in groups(net.space, given.groups):
        with net.awake(names), teaching(this.teacher, this.settings.teacher_precision):
            training = BlockTraining(net, this.data, given, names, seed=0, precision="fp32")
            for index in range(STEPS):
                training.step(index)
            del training


def scores(this: Work) -> None:
    net = this.supernet()
    table = score(net, this.data, this.settings.score)
    output_errors(net, this.data, table, this.settings.score)


def student(this: Work) -> tuple[nn.Module, Trunk | None]:
    """As large as the supernet, as the forecast takes it; the supernet itself is let go."""
    net = this.supernet()
    whole = {block.name: block.teacher for block in this.space.blocks}
    return net.build(Architecture(whole)), net.trunk


def retrain(this: Work) -> None:
    model, trunk = student(this)
    made: Any = model
    settings = this.settings
    with teaching(this.teacher, settings.teacher_precision):
        training = Retraining(
            made, this.teacher, this.data, settings.retrain, seed=0, precision="fp32", trunk=trunk
        )
        for index in range(STEPS):
            training.step(index)


def evaluate(this: Work) -> None:
    small = edited(this.teacher.denoiser, this.space.own, this.space)
    kept, judged = (small, this.trunk()), this.settings.evaluate
    told = this.data.embeddings is not None or this.data.labels is not None
    assert judged.batch_size is not None
    this.teacher.sample(
        judged.samples,
        seed=0,
        sampler="ddim",
        steps=judged.sampler_steps,
        batch_size=judged.batch_size,
        shows=(lambda rows: this.teacher.condition(this.data, rows % IMAGES)) if told else None,
        nothing=this.teacher.nothing(this.data),
        guidance=this.teacher.guidance(judged.guidance),
    )
    del kept


STAGES: dict[str, Callable[[Work], None]] = {
    each.__name__: each for each in (captions, encode, supernet, scores, retrain, evaluate)
}


def foretold(model: str, device: str, *, quick: bool) -> dict[str, int]:
    """Bytes that each stage is foretold to take."""
    this = work(model, "cpu", Path(), quick=quick)
    found = stage_bytes(this.teacher, this.space, this.settings, torch.device(device))
    return {stage: each for stage, each in found.items() if each is not None}


def measured(model: str, stage: str, device: str, *, quick: bool) -> int:
    """Bytes that a stage took at its peak, in this process."""
    if torch.device(device).type == "cuda":
        run(model, stage, device, quick=quick)
        return torch.cuda.max_memory_allocated(device)
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_THRESHOLD, 2**16)
    run(model, stage, device, quick=True)  # libraries' code is mapped on its first call
    gc.collect()
    libc.malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = resident("RssAnon")
    run(model, stage, device, quick=quick)
    return resident("VmHWM") - resident("RssFile") - before  # without the code of libraries


def run(model: str, stage: str, device: str, *, quick: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        STAGES[stage](work(model, device, Path(folder), quick=quick))


def resident(which: str) -> int:
    """Bytes of this process's memory, as Linux tells them."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(which))
