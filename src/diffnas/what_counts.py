"""What of the settings counts: the values that a stage's result is named after.

Of what changes no result the default stands here, so that finished work stays current.
"""

from typing import Any

from diffnas.architecture import Space
from diffnas.scoring import enumerated
from diffnas.settings import RetrainSettings, ScoreSettings, Settings, SpaceSettings

OF_OUTPUT_ERRORS = {"by", "candidates", "output_images"}
"""The settings of scores that change nothing of block losses."""

OF_SEARCHED_BLOCKS = ("enumerate", "evaluations")
"""Those that change nothing where all of every block's subnets are scored."""

LATER = {"task_weight": 1.0, "optimizer": "adamw", "snr_gamma": None}
"""Settings of retraining that came later, and what went without saying before them."""


def of_supernet(settings: Settings) -> dict[str, Any]:
    """Those of the supernet; trained in groups of blocks, its weights are the same."""
    return settings.supernet.model_dump() | {"groups": 1}


def of_precision(settings: Settings) -> list[str]:
    """Both precisions; the teacher's as loaded went without saying before there was a choice."""
    of_teacher = settings.teacher_precision
    return [settings.precision, *([] if of_teacher == "fp32" else [of_teacher])]


def of_block_losses(settings: Settings, space: Space) -> dict[str, Any]:
    """Those of scores that block losses depend on."""
    values = of_scores(settings, space)
    return {key: value for key, value in values.items() if key not in OF_OUTPUT_ERRORS}


def of_output_errors(settings: Settings) -> dict[str, Any]:
    """The others."""
    return settings.score.model_dump(include=OF_OUTPUT_ERRORS)


def of_scores(settings: Settings, space: Space) -> dict[str, Any]:
    """All of scores."""
    values = settings.score.model_dump()
    if all(enumerated(block, settings.score) for block in space.blocks):
        values |= {key: ScoreSettings.model_fields[key].default for key in OF_SEARCHED_BLOCKS}
    return values


def of_search(settings: Settings, space: Space) -> list[Any]:
    """What is searched and how, the same for every trunk."""
    whole = settings.space.model_dump(exclude={"trunk"})
    # Where max_subnets changes a space, its tables are made anew anyhow.
    whole["max_subnets"] = SpaceSettings.model_fields["max_subnets"].default
    how = [whole, of_supernet(settings), of_scores(settings, space)]
    return [how, settings.seed, *of_precision(settings)]


def of_retraining(how: RetrainSettings) -> dict[str, Any]:
    """Those of retraining; whether activations are kept changes no weight."""
    values = how.model_dump() | {"gradient_checkpointing": False}
    return {key: value for key, value in values.items() if (key, value) not in LATER.items()}
