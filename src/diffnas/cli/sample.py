"""``diffnas sample``: a grid of images."""

from pathlib import Path
from typing import Annotated

import typer

from diffnas.cli import options
from diffnas.cli.output import print_result
from diffnas.cli.progress import show_progress
from diffnas.cli.quiet import hush_diffusers
from diffnas.defaults import evaluation_batch


def sample(
    pipeline: Annotated[
        str, typer.Argument(metavar="PIPELINE", help="A diffusers pipeline folder, or a Hub id.")
    ],
    *,
    out: Annotated[Path, typer.Option(metavar="FILE.png", help="Where to write.")] = Path(
        "grid.png"
    ),
    count: Annotated[str, typer.Option(metavar="N", help="How many images.")] = "64",
    sampler: Annotated[
        str | None, typer.Option(metavar="NAME", help="dpmsolver, ddim, euler, ddpm or own.")
    ] = None,
    steps: Annotated[str | None, typer.Option(metavar="N", help="Sampler steps.")] = None,
    device: options.Device = None,
    seed: options.SamplingSeed = None,
    revision: options.Revision = None,
    variant: options.Variant = None,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Write a grid of samples; the same seed gives the same noise to every pipeline."""
    settings = options.read_settings(
        None,
        None,
        {
            "--sampler": (sampler, ("evaluate.sampler",)),
            "--steps": (steps, ("evaluate.sampler_steps",)),
            "--device": (device, ("device",)),
            "--seed": (seed, ("seed",)),
        },
    )
    wanted = options.whole_number("--count", count) or 0
    options.check_file("--out", out, ".png")
    # Only now: usage errors must not wait for torch.
    from diffnas.device import resolve_device

    place = resolve_device(settings.device)
    hush_diffusers()
    from diffnas.checkpoint import write_atomically
    from diffnas.families.loading import load_teacher
    from diffnas.measure.grid import grid

    teacher = load_teacher(
        pipeline,
        device=place,
        revision=revision,
        variant=variant,
        trust_remote_code=trust_remote_code,
    )
    _, height, width = teacher.image_shape
    with show_progress() as progress:
        progress.start("sample", wanted)
        images = teacher.family.sample(
            teacher.pipeline,
            teacher.denoiser,
            wanted,
            seed=settings.seed,
            sampler=settings.evaluate.sampler,
            steps=settings.evaluate.sampler_steps,
            batch_size=min(wanted, evaluation_batch(settings.evaluate, (height, width))),
            progress=progress.update,
        )
    write_atomically(out, lambda path: grid(images).save(path, format="PNG"))
    print_result(str(out))
