"""What pipelines cost and how good their images are, all under one protocol.

References are the held-out images, and beside them the seen ones: a model that copies its data is
near to those only.
"""

from collections.abc import Callable, Mapping
from functools import partial
from statistics import mean, stdev
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from diffnas.data import Data, to_float
from diffnas.defaults import evaluation_batch
from diffnas.errors import UserError
from diffnas.families import Teacher
from diffnas.families.sampling import check_sampler
from diffnas.measure import features as extractors
from diffnas.measure.cost import call_cost
from diffnas.measure.denoising import denoising_loss
from diffnas.measure.latency import latency_ms
from diffnas.measure.memory import memory_bytes
from diffnas.measure.quality import nearest_distance, quality
from diffnas.measure.references import Images, check_counts, features_of, references, shrink, spread
from diffnas.progress import Progress
from diffnas.rng import generator
from diffnas.settings import EvaluateSettings

CLASSES = "as in the held-out images"
"""How the classes of samples are chosen, in words for the protocol."""


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
            classes=any(map(takes_classes, pipelines.values())),
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
    pipeline: Teacher, data: Data, settings: EvaluateSettings, progress: Progress | None = None
) -> dict[str, Any]:
    """Distances of samples to held-out and seen images, and the denoising loss.

    ``frechet_distance``, ``kernel_distance`` (held-out images) and the same with ``_seen`` are
    ``{"mean"}`` over the seeds, with ``"std"`` and ``"each"`` where there are several: all rows of
    one protocol share their seeds, so they can be compared seed by seed. ``denoising_loss`` is the
    mean squared error to the training target on a fixed batch of held-out images; ``nearest_seen``
    the mean distance from samples to the nearest seen image (RMS per pixel, in 0..1).

    Raises:
        UserError: images are too few, or have another shape than the pipeline's.
        RunError: samples are not finite.
    """
    check(pipeline, data, settings)
    progress = progress or Progress()
    held_out, seen = references(data)
    name, device = features_of(data, settings), _feature_device(pipeline.device)
    loss = denoising_loss(pipeline, data, _batch_size(pipeline, settings))
    shrunk = shrink(seen)
    found: dict[str, list[float]] = {}
    nearest = []
    for seed in settings.seeds:
        progress.start("sample", settings.samples)
        images = draw(
            pipeline, data, settings, settings.samples, seed=seed, progress=progress.update
        )
        progress.stop()
        for suffix, reference in (("", held_out), ("_seen", seen)):
            for key, value in quality(images, reference, name, device=device).items():
                found.setdefault(key + suffix, []).append(value)
        nearest.append(nearest_distance(shrink(images), shrunk))
    return {
        **{key: _over_seeds(values) for key, values in found.items()},
        "denoising_loss": loss,
        "nearest_seen": mean(nearest),
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

    A model of classes is given those of held-out images, drawn at random by the seed: the samples
    are compared with these images, whose classes are rarely equally frequent.

    Raises:
        RunError: samples are not finite.
    """
    images: Images = pipeline.family.sample(
        pipeline.pipeline,
        pipeline.denoiser,
        count,
        seed=seed,
        sampler=settings.sampler,
        steps=settings.sampler_steps,
        batch_size=min(count, _batch_size(pipeline, settings)),
        labels=_drawn_classes(data, count, seed),
        progress=progress,
    )
    return images


def _drawn_classes(data: Data, count: int, seed: int) -> npt.NDArray[np.int64] | None:
    if data.labels is None:
        return None
    random = generator(seed, "sample classes", 0)
    picks = torch.randint(len(data.held_out), (count,), generator=random).numpy()
    classes: npt.NDArray[np.int64] = data.labels[data.held_out[picks]]
    return classes


def takes_classes(pipeline: Teacher) -> bool:
    """Whether the pipeline's samples are of classes that it is given."""
    return pipeline.family.class_count(pipeline.denoiser) is not None


def judged_by(pipeline: Teacher, settings: EvaluateSettings) -> dict[str, Any]:
    """What a row of quality depends on beside pipeline, data and device, for fingerprints."""
    named = {"classes": CLASSES} if takes_classes(pipeline) else {}
    return settings.model_dump(exclude={"batch_size"}) | named


def protocol(
    data: Data, settings: EvaluateSettings, device: str | torch.device, *, classes: bool = False
) -> dict[str, Any]:
    """How things are measured; ``real_frechet_distance`` is that of seen to held-out images.

    The latter is taken with as many seen as held-out images: what a perfect model would get.
    ``classes``: whether a pipeline takes classes.

    Raises:
        UserError: images are too few.
    """
    check_counts(data, settings)
    device = torch.device(device)
    held_out, seen = references(data)
    name = features_of(data, settings)
    real = quality(spread(seen, len(held_out)), held_out, name, device=_feature_device(device))
    cuda = device.type == "cuda"
    return {
        "sampler": settings.sampler,
        "steps": settings.sampler_steps,
        "samples": settings.samples,
        "seeds": list(settings.seeds),
        **({"classes": CLASSES} if classes else {}),
        "features": extractors.features(name)[1],
        "reference": data.name,
        "held_out_images": len(held_out),
        "seen_images": len(seen),
        "real_frechet_distance": round(real["frechet_distance"], 4),
        "device": torch.cuda.get_device_name(device) if cuda else device.type,
        "torch": torch.__version__,
    }


def check(pipeline: Teacher, data: Data, settings: EvaluateSettings) -> None:
    """Refuse early what would fail after sampling.

    Raises:
        UserError: images are too few, have another shape than the pipeline's, or lack its classes;
            or the sampler does not fit the pipeline's scheduler.
    """
    makes, has = pipeline.family.image_shape(pipeline.denoiser), data.images.shape[1:]
    if makes != has:
        raise UserError(
            f"model {pipeline.source} makes images of (C, H, W) {makes}, those of {data.name} are "
            f"{tuple(has)}; evaluate pipelines of one image shape together"
        )
    check_counts(data, settings)
    _check_classes(pipeline, data)
    check_sampler(
        pipeline.pipeline.scheduler,
        settings.sampler,
        settings.sampler_steps,
        pipeline.device,
    )


def _check_classes(pipeline: Teacher, data: Data) -> None:
    # The least and the greatest class: a rare one could else turn up after hours of training.
    extremes = None if data.labels is None else [int(data.labels.min()), int(data.labels.max())]
    labels = None if extremes is None else torch.tensor(extremes)
    images = to_float(data.images[[0, 0]])
    pipeline.training_batch(images, labels, generator(0, "check", 0))


def _batch_size(pipeline: Teacher, settings: EvaluateSettings) -> int:
    _, height, width = pipeline.family.image_shape(pipeline.denoiser)
    return evaluation_batch(settings, (height, width))


def _over_seeds(values: list[float]) -> dict[str, Any]:
    several = {"std": stdev(values), "each": values} if len(values) > 1 else {}
    return {"mean": mean(values), **several}


def _feature_device(device: torch.device) -> str:
    # Features are in float64, which Apple's GPUs do not have.
    return str(device) if device.type == "cuda" else "cpu"
