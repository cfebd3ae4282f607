"""``diffnas demo``: the main job in minutes on a laptop."""

from pathlib import Path
from typing import Annotated, Any

import typer

from diffnas.budget import parse_budget
from diffnas.cli import options
from diffnas.cli.compress import run_and_show

SETTINGS: dict[str, Any] = {
    "supernet.steps": 300,
    "score.images": 128,
    "retrain.steps": 2500,
    "retrain.output_weight": 4.0,  # a short training gains from following the teacher closely
    "evaluate.seeds": [0, 1, 2],  # one would move the distance by a tenth and more
}
"""What the demo sets differently; it is meant to show the way, not the best result."""


def demo(
    out: Annotated[Path, typer.Option(metavar="RUN", help="Run folder.")] = Path("runs/demo"),
    device: options.Device = None,
) -> None:
    """Compress the built-in model 'digits' to half its MACs and parameters."""
    assignments = [f"{key}={value}" for key, value in SETTINGS.items()]
    settings = options.read_settings(None, assignments, {"--device": (device, ("device",))})
    run_and_show("digits", "digits", out, parse_budget(macs=0.5, params=0.5), settings)
