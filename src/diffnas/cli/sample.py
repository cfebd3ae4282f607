"""``diffnas sample``: a grid of images."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffnas.cli import options
from diffnas.cli.progress import show_progress
from diffnas.cli.quiet import hush_diffusers
from diffnas.defaults import evaluation_batch
from diffnas.errors import UserError

if TYPE_CHECKING:
    from diffnas.families import Teacher
    from diffnas.families.conditions import Shows


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
    prompt: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="What to show, for a model of texts; repeat for more."),
    ] = None,
    guidance: Annotated[
        str | None, typer.Option(metavar="G", help="Classifier-free guidance; 1 is none.")
    ] = None,
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
            "--guidance": (guidance, ("evaluate.guidance",)),
            "--device": (device, ("device",)),
            "--seed": (seed, ("seed",)),
        },
    )
    wanted = options.whole_number("--count", count)
    out = out.expanduser()
    options.check_file("--out", out, ".png")
    # Only now: usage errors must not wait for torch.
    from diffnas.device import resolve_device

    place = resolve_device(settings.device)
    hush_diffusers()
    from diffnas.checkpoint import write_atomically
    from diffnas.families.loading import load_teacher
    from diffnas.measure.grid import grid
    from diffnas.measure.protocol import check_sampling

    teacher = load_teacher(
        pipeline,
        device=place,
        revision=revision,
        variant=variant,
        trust_remote_code=trust_remote_code,
    )
    _, height, width = teacher.image_shape
    with named_by_flags():
        check_sampling(teacher, settings.evaluate)
    scale = teacher.guidance(settings.evaluate.guidance)
    shows = _shows(teacher, prompt or [], wanted, settings.seed)
    with named_by_flags(), show_progress() as progress:
        progress.start("sample", wanted)
        images = teacher.sample(
            wanted,
            seed=settings.seed,
            sampler=settings.evaluate.sampler,
            steps=settings.evaluate.sampler_steps,
            batch_size=min(wanted, evaluation_batch(settings.evaluate, (height, width))),
            shows=shows,
            nothing=teacher.nothing(),
            guidance=scale,
            progress=progress.update,
        )
    write_atomically(out, lambda path: grid(images).save(path, format="PNG"))
    print(out)


FLAGS = {
    "evaluate.sampler": "--sampler",
    "evaluate.sampler_steps": "--steps",
    "evaluate.guidance": "--guidance",
}
"""The settings behind flags, which ``sample`` knows by these alone."""


@contextmanager
def named_by_flags() -> Iterator[None]:
    """While active, refusals of settings name the flags that gave them."""
    try:
        yield
    except UserError as error:
        line = str(error)
        for setting, flag in FLAGS.items():
            line = line.replace(f"{setting} = ", f"{flag} ")
        raise UserError(line) from None


def _shows(teacher: "Teacher", prompts: list[str], count: int, seed: int) -> "Shows | None":
    """What each image is to show: the prompts in turn, or random classes.

    Raises:
        UserError: prompts are missing, or the model takes none; or it needs images.
    """
    from diffnas.families.conditions import of_classes, random_classes

    if teacher.inpaints:
        raise UserError(
            f"model {teacher.source}: it fills holes in images, and sample has none; call the "
            "pipeline itself with an image and a mask"
        )
    classes = teacher.family.class_count(teacher.denoiser)
    if teacher.family.takes_texts:
        if not prompts:
            raise UserError("--prompt: not given, and the model takes text; say what to show")
        return lambda rows: teacher.told([prompts[row % len(prompts)] for row in rows])
    if prompts:
        raise UserError("--prompt: the model takes no text; leave it out")
    if classes is None:
        return None
    labels = random_classes(count, classes, seed)
    return lambda rows: of_classes(labels, rows, classes)
