"""Whole runs through the command line, made small: real digits, a tiny UNet, a few steps."""

from pathlib import Path

import diffnas
from diffnas.cli import main

FEW = {
    "space.resnet_widths": "[0.5]",
    "space.resnet_kernels": "[]",
    "space.conv_ranks": "[]",
    "space.feed_forward_widths": "[0.5]",
}
"""Few options of each slot, where the preset has any to choose."""

SMALL = {
    "supernet.steps": "4",
    "score.images": "16",
    "score.batch_size": "8",
    "score.candidates": "4",
    "retrain.steps": "4",
    "evaluate.samples": "72",
    "evaluate.sampler_steps": "2",
}

NAME = "macs-0.6"
SEARCH = "trunk-3"
"""Where supernet and scores are: budgets of about half leave streams three of four norm groups."""


def compress(
    teacher: Path | str, out: Path, *flags: str, data: Path | str = "digits", **settings: str
) -> int:
    """``diffnas compress TEACHER --data DATA --out OUT`` with the small settings."""
    return main(command(teacher, out, *flags, data=data, **settings))


def command(
    teacher: Path | str, out: Path, *flags: str, data: Path | str = "digits", **settings: str
) -> list[str]:
    """The words of that command, without the program's name."""
    few = {} if "--space" in flags else FEW
    chosen = few | SMALL | {key.replace("__", "."): value for key, value in settings.items()}
    given = [word for key, value in chosen.items() for word in ("--set", f"{key}={value}")]
    where = ["--data", str(data), "--out", str(out)]
    return ["compress", str(teacher), *where, "--batch-size", "8", *given, *flags]


def weights(run, name=NAME):
    pipeline = diffnas.load(run / "students" / name / "pipeline")
    return pipeline.unet.state_dict()
