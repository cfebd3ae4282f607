"""A model that no search made, retrained and judged as a student is: a control or a rival."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from protocol import COLUMNS, value
from torch import nn

from diffnas.artifacts import current_json
from diffnas.checkpoint import write_json
from diffnas.data import Data, load_data
from diffnas.defaults import resolve_for
from diffnas.device import resolve_device
from diffnas.families import Teacher
from diffnas.families.loading import load_teacher
from diffnas.fingerprint import fingerprint, of_data, of_teacher
from diffnas.measure.cost import call_cost
from diffnas.measure.evaluate import quality_row
from diffnas.measure.protocol import protocol
from diffnas.progress import Progress
from diffnas.retrain import retrain
from diffnas.settings import Settings
from diffnas.trunk import Trunk

ALONE: Mapping[str, Any] = {"schedule": "none", "task_weight": 1.0, "output_weight": 0.0}
"""Retraining settings of a model without a teacher."""


@dataclass(frozen=True)
class Bench:
    """What all rows share. ``settings`` are resolved (no gaps)."""

    teacher: Teacher
    data: Data
    settings: Settings

    @property
    def origin(self) -> str:
        """Fingerprint of teacher and data."""
        return fingerprint(of_teacher(self.teacher), of_data(self.data))

    def under(self, settings: Settings) -> Bench:
        """The same with other settings, whose gaps are filled in as a compression does it."""
        resolved, _ = resolve_for(self.teacher, settings, images=len(self.data.seen))
        return replace(self, settings=resolved)

    def costs(self, model: nn.Module) -> tuple[int, int]:
        """MACs of one call, and parameters."""
        device = next(model.parameters()).device
        inputs = self.teacher.family.example_inputs(self.teacher.denoiser, 1, device)
        cost = call_cost(model, kwargs=inputs)
        return cost.macs, cost.params


def bench(source: str, data_source: str, settings: Settings) -> Bench:
    """Teacher and data as a compression loads them."""
    teacher = load_teacher(source, device=resolve_device(settings.device))
    channels, height, width = teacher.image_shape
    data = load_data(
        data_source,
        size=(height, width),
        channels=channels,
        captioned=teacher.family.takes_texts,
        shapes=teacher.shapes(settings.data.crop),
        **settings.data.loading(),
    )
    return Bench(teacher, data, settings).under(settings)


def trained_row(
    on: Bench,
    start: Callable[[], nn.Module],
    file: Path,
    *,
    made: str,
    changes: Mapping[str, Any],
    progress: Progress,
    trunk: Callable[[], Trunk | None] = lambda: None,
    also: Callable[[Teacher], Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Quality and costs after retraining; kept in ``file``, from which it is read next time.

    ``start`` makes the model before retraining, ``made`` says how; ``changes`` of the retraining's
    settings, such as :data:`ALONE`; ``trunk`` makes what cuts the teacher's blocks to the model's;
    ``also``: further figures of it. The weights stay beside the file, so that another evaluation
    needs no other training.
    """
    settings = on.settings
    how = settings.retrain.model_copy(update=dict(changes))
    trained_from = fingerprint(
        of_teacher(on.teacher),
        of_data(on.data),
        made,
        how.model_dump(),
        settings.seed,
        settings.precision,
    )
    made_from = fingerprint(trained_from, settings.evaluate.model_dump(exclude={"batch_size"}))
    stored = current_json(file, made_from, progress.say)
    if stored is not None:
        return stored
    began = time.monotonic()
    model = start()
    preparing = time.monotonic() - began
    macs, params = on.costs(model)
    seconds = retrain(
        model,
        on.teacher,
        on.data,
        how,
        seed=settings.seed,
        checkpoint=file.with_suffix(".safetensors"),
        precision=settings.precision,
        trunk=trunk(),
        fingerprint=trained_from,
        progress=progress,
    )
    trained = replace(on.teacher, denoiser=model)
    found = {
        "macs": macs,
        "params": params,
        **quality_row(trained, on.data, settings.evaluate, progress),
        **(also(trained) if also else {}),
        "seconds": {"preparing": preparing, "retrain": seconds},
        "protocol": protocol(on.data, settings.evaluate, resolve_device(settings.device)),
        "fingerprint": made_from,
    }
    write_json(file, found)
    return found


def beside_teacher(on: Bench, found: Mapping[str, Any]) -> dict[str, float]:
    """Costs of a row as shares of the teacher's, and its quality: means over sampling seeds."""
    macs, params = on.costs(on.teacher.denoiser)
    return {
        "macs": round(found["macs"] / macs, 4),
        "params": round(found["params"] / params, 4),
        **{key: value(found[key]) for key in COLUMNS},
    }
