"""What both trainings share: steps that can be left and taken up, and the numbers on the way."""

import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from diffnas import checkpoint
from diffnas.errors import RunError
from diffnas.progress import Progress
from diffnas.settings import RetrainSettings, SupernetSettings

SAVE_EVERY = 60.0
"""Seconds between checkpoints: what a killed process loses at most."""


@dataclass(frozen=True)
class Loop:
    """One training: how far, what is written where.

    ``state`` and ``restore`` give and take everything that changes from step to step, as tensors.
    ``fingerprint`` says what the state belongs to; with a checkpoint of something else the training
    begins anew. ``about`` goes with every record in the log.
    """

    stage: str
    steps: int
    step: Callable[[int], Mapping[str, object]]
    state: Callable[[], dict[str, Tensor]]
    restore: Callable[[Mapping[str, Tensor]], None]
    checkpoint: Path | None = None
    fingerprint: str = ""
    progress: Progress = field(default_factory=Progress)
    about: Mapping[str, object] = field(default_factory=dict)
    points: int = 200  # of the curve in the log

    def log(self, **record: object) -> None:
        """One record of this training."""
        self.progress.log(stage=self.stage, **self.about, **record)


def run(loop: Loop) -> float:
    """Take all steps, from the last checkpoint on if there is one.

    A step returns its figures; the numbers among them are shown. The checkpoint is written every
    minute and at the end. An interrupt writes none: the step it stops may have moved some weights.
    Returns the seconds that the steps took, those before a resume included.
    """
    done, before = _resume(loop)
    log_every = max(1, loop.steps // loop.points)
    loop.progress.start(loop.stage, loop.steps, done)
    loop.log(after=done)  # what the log has of later steps is of a training that this one replaces
    began = saved = time.monotonic()
    try:
        for step in range(done, loop.steps):
            figures = loop.step(step)
            done = step + 1
            shown = {k: v for k, v in figures.items() if isinstance(v, float)}
            loop.progress.update(done, **shown)
            if done % log_every == 0 or done == loop.steps:
                loop.log(step=done, **figures)
            if time.monotonic() - saved > SAVE_EVERY:
                saved = time.monotonic()
                _save(loop, done, before + saved - began)
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
    if meta.get("fingerprint") != loop.fingerprint:
        loop.progress.say(f"{loop.stage}: settings or data have changed; it begins anew")
        return 0, 0.0
    loop.restore(tensors)
    return int(meta["step"]), float(meta["seconds"])


def _save(loop: Loop, done: int, seconds: float) -> None:
    if loop.checkpoint is not None:
        meta = {
            "format": "1",
            "fingerprint": loop.fingerprint,
            "step": str(done),
            "seconds": f"{seconds:.1f}",
        }
        checkpoint.save_state(loop.checkpoint, loop.state(), meta)


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


class Optimizer:
    """AdamW with gradient clipping at norm 1, a given rate per step, and a watch on divergence."""

    def __init__(
        self, parameters: list[nn.Parameter], weight_decay: float, precision: str = "fp32"
    ) -> None:
        self.parameters = parameters
        self.adamw = torch.optim.AdamW(parameters, lr=0.0, weight_decay=weight_decay, fused=True)
        device = parameters[0].device.type
        self.scaler = torch.amp.GradScaler(device, enabled=precision == "fp16")
        # Its first use makes its state, which threads must not do at once.
        self.scaler.scale(torch.zeros((), device=parameters[0].device))

    def backward(self, loss: Tensor) -> None:
        """Gradients of a loss, scaled for fp16."""
        self.scaler.scale(loss).backward()

    def step(self, rate: float, where: str) -> None:
        """Update and clear gradients.

        Raises:
            RunError: a gradient is not finite; nothing was updated.
        """
        # A subnet that leaves all layers of its block out trains nothing; the scaler would refuse.
        if all(parameter.grad is None for parameter in self.parameters):
            return
        self.scaler.unscale_(self.adamw)
        norm = float(nn.utils.clip_grad_norm_(self.parameters, 1.0))
        if not math.isfinite(norm) and not self.scaler.is_enabled():
            raise diverged(where)
        for group in self.adamw.param_groups:
            group["lr"] = rate
        self.scaler.step(self.adamw)
        self.scaler.update()
        self.adamw.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """Everything that changes from step to step, as named tensors."""
        moments: dict[int, dict[str, Tensor]] = self.adamw.state_dict()["state"]
        return {
            **{
                f"{row}/{key}": value
                for row, entries in moments.items()
                for key, value in entries.items()
            },
            **{
                f"scaler/{key}": torch.tensor(float(value), dtype=torch.float64)
                for key, value in self.scaler.state_dict().items()
            },
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what :meth:`state` gave."""
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            row, key = name.split("/")
            if row != "scaler":
                moments.setdefault(int(row), {})[key] = value
        self.adamw.load_state_dict({**self.adamw.state_dict(), "state": moments})
        scaler = checkpoint.within(tensors, "scaler/")
        if scaler:
            self.scaler.load_state_dict(
                {
                    key: type(old)(scaler[key].item())
                    for key, old in self.scaler.state_dict().items()
                }
            )


class Average:
    """Exponential moving average of parameters, with a warm-up of its decay (diffusers' EMAModel).

    decay at step n: min(d, 1 - (1 + n)^(-3/4)).
    """

    def __init__(self, parameters: list[nn.Parameter], decay: float) -> None:
        self.parameters = parameters
        self.model = EMAModel(
            parameters, decay=decay, use_ema_warmup=True, power=0.75, foreach=True
        )

    def step(self) -> None:
        """Take the parameters in as they are now."""
        self.model.step(self.parameters)

    def put_in_place(self) -> None:
        """Make the parameters the average."""
        self.model.copy_to(self.parameters)

    def state(self) -> dict[str, Tensor]:
        """Everything that changes from step to step, as named tensors."""
        return {
            **{str(row): value for row, value in enumerate(self.model.shadow_params)},
            "step": torch.tensor(self.model.optimization_step),
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what :meth:`state` gave."""
        self.model.shadow_params = [
            tensors[str(row)].to(parameter.device) for row, parameter in enumerate(self.parameters)
        ]
        self.model.optimization_step = int(tensors["step"])


def diverged(where: str) -> RunError:
    """The error of a training whose loss or gradients are no longer finite."""
    setting = "supernet.learning_rate" if where.startswith("supernet") else "retrain.learning_rate"
    return RunError(
        f"{where}: the loss is not finite; the last good checkpoint is kept; "
        f"lower {setting}, or use --precision fp32"
    )


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Mixed precision around forward passes."""
    if precision == "fp32":
        return nullcontext()
    dtype = torch.bfloat16 if precision == "bf16" else torch.float16
    return torch.autocast(device.type, dtype=dtype)
