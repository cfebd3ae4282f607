"""What pipelines cost and how good their images are, all under one protocol.

References are the held-out images, and beside them the seen ones: a model that copies its data is
near to those only.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from diffnas.architecture import FORMAT
from diffnas.artifacts import current_json
from diffnas.checkpoint import write_json
from diffnas.data import Data, to_float
from diffnas.families import Teacher
from diffnas.families.conditions import Condition
from diffnas.measure.cost import call_cost
from diffnas.measure.denoising import denoising_loss
from diffnas.measure.latency import latency_ms
from diffnas.measure.memory import memory_bytes
from diffnas.measure.protocol import (
    batch_size,
    check,
    feature_device,
    protocol,
    told_all,
)
from diffnas.measure.quality import nearest_distance, quality
from diffnas.measure.references import Images, features_of, references, shrink
from diffnas.progress import Progress
from diffnas.rng import generator
from diffnas.settings import EvaluateSettings


def evaluate(
    pipelines: Mapping[str, Teacher],
    data: Data,
    settings: EvaluateSettings,
    *,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """``{"protocol": {...}, "rows": {name: {**cost, **quality}}}`` for pipelines by name.

    Raises:
        UserError: images are too few, or a pipeline's images have another shape than the data's.
        RunError: a pipeline's samples are not finite.
    """
    for pipeline in pipelines.values():
        check(pipeline, data, settings)
    costs = cost_rows(pipelines)
    return {
        "protocol": protocol(
            data,
            settings,
            next(iter(pipelines.values())).device,
            told_all(pipelines.values(), settings),
        ),
        "rows": {
            name: costs[name] | quality_row(pipeline, data, settings, progress)
            for name, pipeline in pipelines.items()
        },
    }


def cost_rows(pipelines: Mapping[str, Teacher]) -> dict[str, dict[str, float]]:
    """Cost of one denoiser call at batch 1; latencies are taken in turns, on each one's device."""
    inputs = {
        name: pipeline.family.example_inputs(pipeline.denoiser, 1, pipeline.device)
        for name, pipeline in pipelines.items()
    }
    latency = latency_ms(
        {name: partial(pipeline.denoiser, **inputs[name]) for name, pipeline in pipelines.items()},
        device=next(iter(pipelines.values())).device,
    )
    rows = {}
    for name, pipeline in pipelines.items():
        cost = call_cost(pipeline.denoiser, kwargs=inputs[name])
        rows[name] = {
            "params": cost.params,
            "macs": cost.macs,
            "macs_without_attention": cost.macs_without_attention,
            "latency_ms": latency[name],
            "memory_bytes": memory_bytes(pipeline.denoiser, inputs[name]),
        }
    return rows


def quality_row(
    pipeline: Teacher,
    data: Data,
    settings: EvaluateSettings,
    progress: Progress | None = None,
    *,
    checkpoint: Path | None = None,
    fingerprint: str = "",
) -> dict[str, Any]:
    """Distances of samples to held-out and seen images, and the denoising loss.

    ``frechet_distance``, ``kernel_distance`` (held-out images) and the same with ``_seen`` are
    ``{"mean"}`` over the seeds, with ``"std"`` and ``"each"`` where there are several: all rows of
    one protocol share their seeds, so they can be compared seed by seed. ``denoising_loss`` is the
    mean squared error to the training target on a fixed batch of held-out images; ``nearest_seen``
    the mean distance from samples to the nearest seen image (RMS per pixel, in 0..1).
    With a ``checkpoint`` path, seeds that an earlier call with that fingerprint has measured are
    not sampled again.

    Raises:
        UserError: images are too few, or have another shape than the pipeline's.
        RunError: samples are not finite.
    """
    check(pipeline, data, settings)
    progress = progress or Progress()
    held_out, seen = references(data)
    name, device = features_of(data.name, settings), feature_device(pipeline.device)
    loss = denoising_loss(pipeline, data, batch_size(pipeline, settings))
    shrunk = shrink(seen)
    kept = None if checkpoint is None else current_json(checkpoint, fingerprint, progress.say)
    rows: list[dict[str, float]] = kept["rows"] if kept else []
    for seed in settings.seeds[len(rows) :]:
        progress.start("sample", settings.samples)
        images = draw(
            pipeline, data, settings, settings.samples, seed=seed, progress=progress.update
        )
        progress.stop()
        row = {"nearest_seen": nearest_distance(shrink(images), shrunk)}
        for suffix, reference in (("", held_out), ("_seen", seen)):
            found = quality(images, reference, name, device=device)
            row |= {key + suffix: value for key, value in found.items()}
        rows.append(row)
        if checkpoint is not None:
            write_json(checkpoint, {"format": FORMAT, "fingerprint": fingerprint, "rows": rows})
    by_key = {key: [row[key] for row in rows] for key in rows[0]}
    nearest = mean(by_key.pop("nearest_seen"))
    return {
        **{key: _over_seeds(values) for key, values in by_key.items()},
        "denoising_loss": loss,
        "nearest_seen": nearest,
    }


def draw(
    pipeline: Teacher,
    data: Data,
    settings: EvaluateSettings,
    count: int,
    *,
    seed: int,
    progress: Callable[[int], None] | None = None,
) -> Images:
    """``count`` samples as they are measured: few are the first of many.

    A model of classes or texts is given those of held-out images, drawn at random by the seed: the
    samples are compared with these images, whose classes are rarely equally frequent. One that
    fills holes is shown these images; hole i of a seed follows from (seed, i) alone.

    Raises:
        UserError: the data lack what the model is to be told.
        RunError: samples are not finite.
    """
    random = generator(seed, "sample classes", 0)
    picks = data.held_out[torch.randint(len(data.held_out), (count,), generator=random).numpy()]

    def shows(indices: npt.NDArray[np.int64]) -> Condition:
        rows = picks[indices]
        condition = pipeline.condition(data, rows)
        if not pipeline.inpaints:
            return condition
        randoms = [generator(seed, "sample holes", int(index)) for index in indices]
        return condition | pipeline.shown(to_float(data.images[rows]), randoms)

    return pipeline.sample(
        count,
        seed=seed,
        sampler=settings.sampler,
        steps=settings.sampler_steps,
        batch_size=min(count, batch_size(pipeline, settings)),
        shows=shows,
        nothing=pipeline.nothing(data),
        guidance=pipeline.guidance(settings.guidance),
        progress=progress,
    )


def _over_seeds(values: list[float]) -> dict[str, Any]:
    several = {"std": stdev(values), "each": values} if len(values) > 1 else {}
    return {"mean": mean(values), **several}
