"""What both trainings share: steps that can be left and taken up, and the numbers on the way."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from torch import Tensor

from diffnas import checkpoint
from diffnas.parallel import single_threaded
from diffnas.progress import Progress
from diffnas.settings import RetrainSettings, SupernetSettings

FORMAT = "2"
"""Of checkpoints; 1 named the optimizer's part otherwise."""

SAVE_EVERY = 60.0
"""Seconds between checkpoints: what a killed process loses at most, where saves are quick."""

SLOW = 6.0
"""Seconds of a save from which on saves are rarer: they take a tenth of the time at most."""


@dataclass(frozen=True)
class Pace:
    """How far, how much at once, how fast: the part of both trainings' settings that has gaps."""

    steps: int
    batch_size: int
    peak: float

    @classmethod
    def of(cls, settings: SupernetSettings | RetrainSettings) -> "Pace":
        """Those of settings without gaps (:mod:`diffnas.defaults`)."""
        assert settings.steps is not None
        assert settings.batch_size is not None
        assert settings.learning_rate is not None
        return cls(settings.steps, settings.batch_size, settings.learning_rate)

    def learning_rate(self, step: int) -> float:
        """Linear warm-up over the first 5 % of the steps (100 at most), then a cosine to zero."""
        warm = max(1, min(100, self.steps // 20))
        if step < warm:
            return self.peak * (step + 1) / warm
        progress = (step - warm) / max(1, self.steps - warm)
        return self.peak * 0.5 * (1 + math.cos(math.pi * progress))


class Training(Protocol):
    """A training as :func:`train` takes its steps: what one step does, and all that it changes."""

    pace: Pace
    workers: int

    def step(self, index: int, /) -> Mapping[str, object]:
        """Take a step; its figures."""

    def state(self) -> dict[str, Tensor]:
        """Everything that changes from step to step, as named tensors."""

    def restore(self, tensors: Mapping[str, Tensor], /) -> None:
        """Take what :meth:`state` gave."""


@dataclass(frozen=True)
class Loop:
    """A training, and what is written of it where.

    ``fingerprint`` says what its state belongs to; with a checkpoint of something else the training
    begins anew. ``about`` goes with every record in the log.
    """

    stage: str
    training: Training
    checkpoint: Path | None = None
    fingerprint: str = ""
    progress: Progress = field(default_factory=Progress)
    about: Mapping[str, object] = field(default_factory=dict)
    points: int = 200  # of the curve in the log

    def log(self, **record: object) -> None:
        """One record of this training."""
        self.progress.log(stage=self.stage, **self.about, **record)


def train(loop: Loop) -> float:
    """Take all steps, from the last checkpoint on if there is one.

    A step returns its figures; the numbers among them are shown. The checkpoint is written every
    minute, or more rarely where that takes long (:data:`SLOW`), and at the end. An interrupt writes
    none: the step it stops may have moved some weights.
    Beside threads of the training's own, operators run on one thread.
    Returns the seconds that the steps took, those before a resume included.
    """
    done, before = _resume(loop)
    training, steps = loop.training, loop.training.pace.steps
    log_every = max(1, steps // loop.points)
    loop.progress.start(loop.stage, steps, done)
    loop.log(after=done)  # what the log has of later steps is of a training that this one replaces
    began = saved = time.monotonic()
    pause = SAVE_EVERY
    try:
        with single_threaded(training.workers > 1):
            for step in range(done, steps):
                figures = training.step(step)
                done = step + 1
                shown = {k: v for k, v in figures.items() if isinstance(v, float)}
                loop.progress.update(done, **shown)
                if done % log_every == 0 or done == steps:
                    loop.log(step=done, **figures)
                if (now := time.monotonic()) - saved > pause:
                    _save(loop, done, before + now - began)
                    saved = time.monotonic()
                    pause = SAVE_EVERY * max(1.0, (saved - now) / SLOW)
    finally:
        loop.progress.stop()
    seconds = before + time.monotonic() - began
    _save(loop, done, seconds)
    return seconds


def _resume(loop: Loop) -> tuple[int, float]:
    if loop.checkpoint is None or not loop.checkpoint.exists():
        return 0, 0.0
    found = checkpoint.load_state(loop.checkpoint)
    if found is None:
        loop.progress.say(f"{loop.checkpoint}: damaged; {loop.stage} begins again")
        return 0, 0.0
    tensors, meta = found
    if meta.get("format") != FORMAT:
        loop.progress.say(f"{loop.checkpoint}: of another version; {loop.stage} begins anew")
        return 0, 0.0
    if meta.get("fingerprint") != loop.fingerprint:
        loop.progress.say(f"{loop.stage}: settings or data have changed; it begins anew")
        return 0, 0.0
    loop.training.restore(tensors)
    return int(meta["step"]), float(meta["seconds"])


def _save(loop: Loop, done: int, seconds: float) -> None:
    if loop.checkpoint is not None:
        meta = {
            "format": FORMAT,
            "fingerprint": loop.fingerprint,
            "step": str(done),
            "seconds": f"{seconds:.1f}",
        }
        checkpoint.save_state(loop.checkpoint, loop.training.state(), meta)
