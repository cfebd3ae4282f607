"""Retraining of a student with the dynamic joint loss."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import ModelMixin
from torch import Tensor, nn

from diffnas.blocks import Call, capture, recorded
from diffnas.checkpoint import within
from diffnas.data import Data
from diffnas.families import Batch, Family, Teacher
from diffnas.families.batches import random_batch
from diffnas.families.noise import min_snr_weights
from diffnas.losses import beta, block_loss, block_target, joint_loss
from diffnas.measure.cost import call_cost
from diffnas.optimizer import Average, Optimizer, autocast, diverged, matrices_of
from diffnas.parallel import thread_map, twin, workers_for
from diffnas.progress import Progress
from diffnas.rng import generator
from diffnas.settings import Precision, RetrainSettings
from diffnas.training import Loop, Pace, train
from diffnas.trunk import Trunk


class Retraining:
    """A student's training, step by step, in place. ``settings`` must be resolved (no gaps)."""

    def __init__(
        self,
        student: ModelMixin,
        teacher: Teacher,
        data: Data,
        settings: RetrainSettings,
        *,
        seed: int,
        precision: Precision,
        trunk: Trunk | None = None,
    ) -> None:
        assert settings.ema_decay is not None
        self.student, self.teacher, self.data, self.settings = student, teacher, data, settings
        self.trunk = trunk
        self.pace, self.seed, self.precision = Pace.of(settings), seed, precision
        self.device = teacher.device
        student.eval().requires_grad_(True)  # eval: dropout off, as in the supernet
        if settings.gradient_checkpointing:
            student.enable_gradient_checkpointing()
        self.parameters = list(student.parameters())
        self.optimizer = Optimizer(
            self.parameters,
            settings.weight_decay,
            precision,
            matrices_of(student) if settings.optimizer == "muon" else (),
        )
        self.average = Average(self.parameters, settings.ema_decay)
        inputs = teacher.family.example_inputs(teacher.denoiser, 1, self.device)
        macs = call_cost(teacher.denoiser, kwargs=inputs).macs
        self.workers = parts_of_batch(self.device, macs, self.pace.batch_size)
        # Threads record the calls of modules of their own, which share their weights.
        self.pairs = [(twin(student), twin(teacher.denoiser)) for _ in range(self.workers)]

    def noisy(self, index: int) -> Batch:
        """The noisy images of a step, and what is to be predicted."""
        random = generator(self.seed, "retrain", index)
        noisy = random_batch(self.teacher, self.data, self.pace.batch_size, random)
        if self.settings.snr_gamma is None or noisy.timesteps is None:
            return noisy
        config = self.teacher.scheduler.config
        weights = min_snr_weights(config, noisy.timesteps, self.settings.snr_gamma)
        return replace(noisy, weights=weights)

    def gradients(
        self, models: tuple[nn.Module, nn.Module], part: Batch, weight: float
    ) -> tuple[dict[str, float], list[Tensor | None]]:
        """Losses of a part of the batch at ``weight`` = beta, and its share of the gradients."""
        with autocast(self.precision, self.device):
            losses = losses_of(
                *models,
                self.teacher.family,
                part,
                settings=self.settings,
                weight=weight,
                trunk=self.trunk,
            )
        share = len(part.target) / self.pace.batch_size
        scaled = self.optimizer.scaler.scale(losses["loss"] * share)
        found = torch.autograd.grad(scaled, self.parameters, allow_unused=True)
        return {name: float(loss.detach()) * share for name, loss in losses.items()}, list(found)

    def step(self, index: int) -> dict[str, object]:
        """Train on one batch, its parts side by side in threads where there are any."""
        ramp = self.settings.ramp * (self.pace.steps - 1)
        weight = beta(self.settings.schedule, min(1.0, index / max(1, ramp)))
        parts = split(self.noisy(index), self.workers)
        results = thread_map(
            lambda each: self.gradients(*each, weight),
            list(zip(self.pairs, parts, strict=False)),
            self.workers,
        )
        figures = {name: sum(found[name] for found, _ in results) for name in results[0][0]}
        where = f"retrain step {index}"
        if not math.isfinite(figures["loss"]):
            raise diverged(where, self.precision)
        addends = zip(*(found for _, found in results), strict=True)
        for parameter, found in zip(self.parameters, addends, strict=True):
            parameter.grad = total(found)
        self.optimizer.step(self.pace.learning_rate(index), where)
        self.average.step()
        return {**figures, "beta": weight}

    def state(self) -> dict[str, Tensor]:
        """Everything that changes from step to step, as named tensors."""
        parts = {
            "model": self.student.state_dict(),
            "average": self.average.state(),
            "optimizer": self.optimizer.state(),
        }
        return {
            f"{part}/{name}": value
            for part, values in parts.items()
            for name, value in values.items()
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what :meth:`state` gave."""
        self.student.load_state_dict(within(tensors, "model/"))
        self.average.restore(within(tensors, "average/"))
        self.optimizer.restore(within(tensors, "optimizer/"))


def retrain(
    student: ModelMixin,
    teacher: Teacher,
    data: Data,
    settings: RetrainSettings,
    *,
    seed: int = 0,
    precision: Precision = "fp32",
    trunk: Trunk | None = None,
    checkpoint: Path | None = None,
    fingerprint: str = "",
    progress: Progress | None = None,
    log: Mapping[str, object] | None = None,
) -> float:
    """Train a student, in place; it ends with the averaged (EMA) weights. Returns the seconds.

    L = (1 - beta) * sum_k l_k + beta * (t * MSE(target) + w * MSE(teacher's prediction)), with the
    settings' task_weight t and output_weight w, and beta rising from 0 to 1 by
    ``settings.schedule`` (arXiv 2311.04950). The l_k compare the student's blocks
    with the teacher's, fed by the student's own forward pass or, block by block, by the teacher's.
    ``settings`` must be resolved, without gaps (:mod:`diffnas.defaults`); ``trunk`` is the
    student's, None for the teacher's; ``log`` goes with every record in the log.

    Raises:
        RunError: the loss is no longer finite.
    """
    training = Retraining(
        student, teacher, data, settings, seed=seed, precision=precision, trunk=trunk
    )
    loop = Loop("retrain", training, checkpoint, fingerprint, progress or Progress(), log or {})
    seconds = train(loop)
    training.average.put_in_place()
    student.requires_grad_(False)
    if settings.gradient_checkpointing:
        student.disable_gradient_checkpointing()
    return seconds


def fresh_weights(model: Any, seed: int) -> None:
    """Give a model the random weights that its class begins with, the same on every device."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = type(model).from_config(model.config)
    model.load_state_dict(fresh.state_dict())


def losses_of(
    student: nn.Module,
    denoiser: nn.Module,
    family: Family,
    part: Batch,
    *,
    settings: RetrainSettings,
    weight: float,
    trunk: Trunk | None = None,
) -> dict[str, Tensor]:
    """The joint loss of a batch at ``weight`` = beta, and its parts; 0-dim tensors.

    Only what counts is computed: block losses below weight 1, unless the schedule is 'none'.
    """
    assert settings.task_weight is not None
    assert settings.output_weight is not None
    names: list[str] = []
    if weight < 1 and settings.schedule != "none":
        # A student may have lost a whole block, whose part in the sum then has nothing to train.
        kept = set(family.block_names(student))
        names = [name for name in family.block_names(denoiser) if name in kept]
    taught, calls = None, dict[str, Call]()
    if names or settings.output_weight > 0:
        output, calls = capture(denoiser, names, part.inputs)
        taught = family.prediction(output, part.size).float()
        calls = calls if trunk is None else trunk.cut(calls)
    with recorded(student, names if settings.features == "student" else []) as own:
        predicted = family.prediction(student(**part.inputs), part.size).float()
    blocks = []
    for name in names:
        call = calls[name]
        if settings.features == "student":
            given = own[name].output
        else:
            given = student.get_submodule(name)(*call.args, **call.kwargs)
        blocks.append(block_loss(given, block_target(call, "residual")))
    figures = {"task": part.error(predicted)}
    prediction = settings.task_weight * figures["task"]
    if taught is not None and settings.output_weight > 0:
        figures["output"] = part.distance(predicted, taught)  # a learned variance too
        prediction = prediction + settings.output_weight * figures["output"]
    if blocks:
        figures["blocks"] = torch.stack(blocks).sum()
    return {"loss": joint_loss(blocks, prediction, weight), **figures}


def total(gradients: Sequence[Tensor | None]) -> Tensor | None:
    """Sum of the gradients that there are."""
    found = [gradient for gradient in gradients if gradient is not None]
    return sum(found[1:], found[0]) if found else None


def parts_of_batch(device: torch.device, macs: int, size: int) -> int:
    """In how many parts a batch is trained on side by side; ``macs``: of the teacher's call."""
    return min(workers_for(device, macs * size), max(1, size // 8))


def split(whole: Batch, parts: int) -> list[Batch]:
    """A batch in at most ``parts`` pieces of about equal size."""
    size = len(whole.target)
    chunks = torch.arange(size).chunk(min(parts, size))
    return [whole.rows(slice(int(rows[0]), int(rows[-1]) + 1)) for rows in chunks]
