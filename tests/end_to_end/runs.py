"""Whole runs through the command line, made small: real digits, a tiny UNet, a few steps."""

from pathlib import Path

from diffnas.cli import main

SMALL = {
    "space.resnet_widths": "[0.5]",
    "space.resnet_kernels": "[]",
    "space.conv_ranks": "[]",
    "supernet.steps": "4",
    "score.images": "16",
    "score.batch_size": "8",
    "retrain.steps": "4",
    "evaluate.samples": "72",
    "evaluate.sampler_steps": "2",
}


def compress(teacher: Path | str, out: Path, *flags: str, **settings: str) -> int:
    """``diffnas compress TEACHER --data digits --out OUT`` with the small settings."""
    chosen = SMALL | {key.replace("__", "."): value for key, value in settings.items()}
    given = [word for key, value in chosen.items() for word in ("--set", f"{key}={value}")]
    batch = ("--batch-size", "8")
    return main(
        ["compress", str(teacher), "--data", "digits", "--out", str(out), *batch, *given, *flags]
    )
