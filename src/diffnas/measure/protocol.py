"""How quality is judged: what is the same for all rows, and what is refused before any work."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch

from diffnas.data import Data
from diffnas.defaults import evaluation_batch
from diffnas.errors import UserError
from diffnas.families import Teacher
from diffnas.families.batches import batch_of
from diffnas.families.sampling import check_sampler
from diffnas.measure import features as extractors
from diffnas.measure.quality import quality
from diffnas.measure.references import Picked, check_counts, features_of, references, spread
from diffnas.rng import generator
from diffnas.settings import EvaluateSettings

SHOWN = "as in the held-out images"
"""How the classes or captions of samples are chosen, in words for the protocol."""


HOLES = "random boxes in held-out images, or the whole of them"
"""What samples fill, in words for the protocol."""


def told(pipeline: Teacher, settings: EvaluateSettings) -> dict[str, Any]:
    """What the pipeline is told of its samples, in words for the protocol; empty if nothing."""
    found: dict[str, Any] = {}
    if pipeline.family.takes_texts:
        found["captions"] = SHOWN
    elif pipeline.family.class_count(pipeline.denoiser) is not None:
        found["classes"] = SHOWN
    if pipeline.inpaints:
        found["holes"] = HOLES
    if (guidance := pipeline.guidance(settings.guidance)) != 1.0:
        found["guidance"] = guidance
    return found


def told_all(pipelines: Iterable[Teacher], settings: EvaluateSettings) -> dict[str, Any]:
    """What each of several is told; of guidances that differ, all."""
    each = [told(pipeline, settings) for pipeline in pipelines]
    found = {key: value for one in each for key, value in one.items()}
    guidances = dict.fromkeys(one.get("guidance", 1.0) for one in each)
    if len(guidances) > 1:
        found["guidance"] = " and ".join(f"{guidance:g}" for guidance in guidances)
    return found


def judged_by(pipeline: Teacher, settings: EvaluateSettings) -> dict[str, Any]:
    """What a row of quality depends on beside pipeline, data and device, for fingerprints."""
    return settings.model_dump(exclude={"batch_size", "guidance"}) | told(pipeline, settings)


def protocol(
    data: Data,
    settings: EvaluateSettings,
    device: str | torch.device,
    told: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """How things are measured; ``real_frechet_distance`` is that of seen to held-out images.

    The latter is taken with as many seen as held-out images: what so few real images get.
    ``told``: what pipelines are told of their samples (:func:`told`).

    Raises:
        UserError: images are too few.
    """
    check_counts(data, settings)
    device = torch.device(device)
    held_out, seen = references(data)
    name = features_of(data.name, settings)
    equally_many = Picked(seen.images, spread(seen.rows, len(held_out)))
    real = quality(equally_many, held_out, name, device=feature_device(device))
    cuda = device.type == "cuda"
    return {
        "sampler": settings.sampler,
        "steps": settings.sampler_steps,
        "samples": settings.samples,
        "seeds": list(settings.seeds),
        **(told or {}),
        "features": extractors.features(name).words,
        "reference": data.name,
        "held_out_images": len(held_out),
        "seen_images": len(seen),
        "real_frechet_distance": round(real["frechet_distance"], 4),
        "device": torch.cuda.get_device_name(device) if cuda else device.type,
        "torch": torch.__version__,
    }


def check_sampling(pipeline: Teacher, settings: EvaluateSettings) -> None:
    """Refuse how samples are to be drawn, where the pipeline cannot; its weights are not needed.

    Raises:
        UserError: the sampler does not fit its scheduler, or it cannot be guided as asked.
    """
    pipeline.guidance(settings.guidance)
    check_sampler(
        pipeline.scheduler_for(settings.sampler_steps),
        settings.sampler,
        settings.sampler_steps,
        torch.device("cpu"),
        pipeline.family.levels,
    )


def check(pipeline: Teacher, data: Data, settings: EvaluateSettings) -> None:
    """Refuse early what would fail after sampling.

    Raises:
        UserError: images are too few, have another shape than the pipeline's, or lack its classes
            or captions; or as :func:`check_sampling`.
    """
    makes, has = pipeline.image_shape, data.images.shape[1:]
    if makes != has:
        raise UserError(
            f"model {pipeline.source} makes images of (C, H, W) {makes}, those of {data.name} are "
            f"{tuple(has)}; evaluate pipelines of one image shape together"
        )
    check_counts(data, settings)
    check_sampling(pipeline, settings)
    _check_conditions(pipeline, data)


def _check_conditions(pipeline: Teacher, data: Data) -> None:
    # The least and the greatest class: a rare one could else turn up after hours of training.
    extremes = [0] if data.labels is None else [data.labels.argmin(), data.labels.argmax()]
    rows = np.array(extremes, dtype=np.int64)
    batch_of(pipeline, data, rows, generator(0, "check", 0))


def batch_size(pipeline: Teacher, settings: EvaluateSettings) -> int:
    """Images sampled at once."""
    _, height, width = pipeline.image_shape
    return evaluation_batch(settings, (height, width))


def feature_device(device: torch.device) -> str:
    """Where features are computed: they are in float64, which Apple's GPUs do not have."""
    return str(device) if device.type == "cuda" else "cpu"
