"""Defaults that depend on the model and the data, each with its reason."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from diffnas.errors import UserError
from diffnas.settings import EvaluateSettings, Settings

if TYPE_CHECKING:  # the command line's help does without torch
    from diffnas.families import Teacher

STEPS_AT_1M = 13_000
"""Retraining steps of a teacher of a million parameters (measured: docs/choices.md)."""

RATES_AT_1M = {"adamw": 2e-3, "muon": 5e-3}
"""Retraining's peak rate of a teacher of a million parameters or fewer (docs/choices.md)."""

SUPERNET_SHARE = 1 / 32
"""Supernet steps as a share of the retraining's: more did no better (docs/choices.md)."""

WEIGHTS = {"task_weight": 1.0, "output_weight": 0.0}
"""Of what the data ask for and of the teacher's prediction: further steps without it serve better
than fewer with it (docs/choices.md)."""

WEIGHTS_OF_TEXTS = {"task_weight": 1.0, "output_weight": 0.25}
"""Where images can show but a little of what the teacher knows."""

WEIGHTS_ALONE = {"task_weight": 0.0, "output_weight": 1.0}
"""Where the teacher's prediction is all that a student follows."""

DROPOUT = 0.1
"""Share of conditions left out in training (Ho and Salimans 2022, arXiv 2207.12598: 0.1 to 0.2)."""


def resolve(
    settings: Settings,
    *,
    params: int,
    size: tuple[int, int],
    images: int | None = None,
    guidable: bool = False,
    distilled: bool = False,
    texts: bool = False,
    guided: bool = False,
) -> tuple[Settings, dict[str, str]]:
    """The settings without gaps, and the reason of each value filled in.

    ``params``: the teacher's; ``size``: (H, W) of what it denoises, pixels or latents; ``images``:
    how many there are to train on, where known; ``guidable``: whether the model can be told
    nothing, so that sampling can be guided; ``distilled``: whether it predicts what its own
    teacher did, and not what its data ask for; ``texts``: whether it is told texts; ``guided``:
    whether the images are samples that were guided, and their student's will be too.

    Raises:
        UserError: retraining would have nothing to go by.
    """
    millions = params / 1e6
    steps = round_to_two(min(max(STEPS_AT_1M * math.sqrt(millions), 2000), 100_000))
    batch_size = _batch_size(size, images)
    rates = {
        name: round_to_two(rate * min(1.0, millions**-0.5)) for name, rate in RATES_AT_1M.items()
    }
    of_model = f"for {millions:.3g} M parameters"
    of_images = f"for {size[0]} x {size[1]} to denoise" + (f", {images} of them" if images else "")
    retrain_steps = settings.retrain.steps or int(steps)
    decay = min(max(1 - 10 / min(retrain_steps, settings.max_steps or retrain_steps), 0.9), 0.9999)
    weights, why = _weights(
        settings.retrain.task_weight, distilled=distilled, texts=texts, guided=guided
    )
    filled, reasons = _fill(
        settings,
        {
            "supernet.steps": (int(SUPERNET_SHARE * steps), "a 32nd of the default retraining"),
            "supernet.batch_size": (batch_size, of_images),
            "supernet.learning_rate": (
                rates["adamw"] / 4,
                f"{of_model}; a quarter of retraining's: weights are shared",
            ),
            "score.batch_size": (
                settings.supernet.batch_size or batch_size,
                "as supernet.batch_size",
            ),
            "retrain.steps": (int(steps), f"{of_model}; grows with their square root"),
            "retrain.batch_size": (batch_size, of_images),
            "retrain.learning_rate": (
                rates[settings.retrain.optimizer],
                f"{of_model}; falls with their square root",
            ),
            "retrain.ema_decay": (round(decay, 4), "an average over the last tenth of the steps"),
            "data.condition_dropout": (
                DROPOUT if guidable else 0.0,
                "so that samples can be guided" if guidable else "",
            ),
            **{f"retrain.{name}": (weight, why) for name, weight in weights.items()},
        },
    )
    if not (filled.retrain.task_weight or filled.retrain.output_weight):
        raise UserError(
            "retrain.task_weight = 0, retrain.output_weight = 0: retraining has nothing to go by; "
            "raise one of them"
        )
    return filled, reasons


def resolve_for(
    teacher: Teacher, settings: Settings, *, images: int | None = None, own_samples: bool = False
) -> tuple[Settings, dict[str, str]]:
    """As :func:`resolve`, for what is known of a teacher.

    ``own_samples``: whether the images are the teacher's own samples.

    Raises:
        UserError: retraining would have nothing to go by, or the teacher cannot be guided as asked.
    """
    calls = teacher.calls(teacher.guidance(settings.evaluate.guidance)) if own_samples else 1
    _, *sides = teacher.family.sample_shape(teacher.denoiser)
    # Counted in latents, as of the families that pack them into squares themselves.
    height, width = (teacher.family.square * side for side in sides)
    return resolve(
        settings,
        params=sum(parameter.numel() for parameter in teacher.denoiser.parameters()),
        size=(height, width),
        images=images,
        guidable=teacher.guidable,
        distilled=teacher.distilled,
        texts=teacher.family.takes_texts,
        guided=calls > 1,
    )


def _weights(
    task_weight: float | None, *, distilled: bool, texts: bool, guided: bool
) -> tuple[dict[str, float], str]:
    """Weights of retraining's goals, and why if they are not the usual ones."""
    if task_weight == 0:
        return WEIGHTS_ALONE, "as retrain.task_weight is 0"
    if distilled and task_weight is None:
        return WEIGHTS_ALONE, "a distilled model's data ask for something else than it predicts"
    if guided and task_weight is None:
        return WEIGHTS_ALONE, "a student that learned guided samples would be guided twice"
    if texts:
        return WEIGHTS_OF_TEXTS, "no images show all that a model of texts knows"
    return WEIGHTS, ""


def evaluation_batch(settings: EvaluateSettings, size: tuple[int, int]) -> int:
    """Images sampled at once: twice what training takes, as nothing is kept for gradients."""
    return settings.batch_size or 2 * _batch_size(size, None)


def round_to_two(value: float) -> float:
    """Two significant digits: more would only look exact."""
    return float(f"{value:.1e}")


def _batch_size(size: tuple[int, int], images: int | None) -> int:
    """64 up to 32 x 32, then as many as keep the number of pixels; never more than there are."""
    wanted = 64 * 32 * 32 / max(32 * 32, size[0] * size[1])
    power_of_two = 2 ** max(2, round(math.log2(wanted)))
    return power_of_two if images is None else max(1, min(power_of_two, images))


def _fill(
    settings: Settings, defaults: Mapping[str, tuple[float, str]]
) -> tuple[Settings, dict[str, str]]:
    """The settings with these in their gaps, by dotted name; and why, where that is to be said."""
    values: dict[str, dict[str, Any]] = {}
    reasons: dict[str, str] = {}
    most = settings.max_steps
    for name, (default, reason) in defaults.items():
        section, key = name.split(".")
        value = getattr(getattr(settings, section), key)
        if value is None:
            value = default
            if reason:
                reasons[name] = f"{default:g}, {reason}"
        if key == "steps" and most is not None and value > most:
            value = most
            reasons[name] = f"{most}, capped by max_steps"
        values.setdefault(section, {})[key] = value
    sections = {
        section: getattr(settings, section).model_copy(update=own)
        for section, own in values.items()
    }
    return settings.model_copy(update=sections), reasons
