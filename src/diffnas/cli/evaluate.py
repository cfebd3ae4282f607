"""``diffnas evaluate``: any pipelines, side by side, under one protocol."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffnas.cli import options
from diffnas.cli.output import print_json, print_table
from diffnas.cli.progress import show_progress
from diffnas.cli.quiet import hush_diffusers
from diffnas.errors import UserError
from diffnas.names import OWN_SAMPLES
from diffnas.report.table import side_by_side
from diffnas.report.words import protocol_line
from diffnas.settings import Settings

if TYPE_CHECKING:
    from diffnas.families import Teacher


def evaluate(
    pipelines: Annotated[
        list[str],
        typer.Argument(metavar="PIPELINE...", help="diffusers pipeline folders or Hub ids."),
    ],
    *,
    data: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="A folder of images, a Hub data set id, or 'digits'."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For a program.")] = False,
    settings_file: options.SettingsFile = None,
    assignments: options.Assignments = None,
    batch_size: Annotated[
        str | None,
        typer.Option(metavar="N", help="Images at once.", rich_help_panel=options.SETTINGS),
    ] = None,
    device: options.Device = None,
    seed: options.SamplingSeed = None,
    revision: options.Revision = None,
    variant: options.Variant = None,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Measure cost and quality of pipelines with the same sampler, steps, seeds and images."""
    settings = options.read_settings(
        settings_file,
        assignments,
        {
            "--batch-size": (batch_size, ("evaluate.batch_size",)),
            "--device": (device, ("device",)),
            "--seed": (seed, ("evaluate.seeds=[{}]",)),
        },
    )
    if data is None:
        raise UserError("--data: missing; give a folder of images, a Hub data set id or digits")
    if data == OWN_SAMPLES:
        raise UserError("--data teacher: only 'compress' knows which; give images or './teacher'")
    found = measure(
        pipelines,
        data,
        settings,
        revision=revision,
        variant=variant,
        trust_remote_code=trust_remote_code,
    )
    if as_json:
        print_json(found)
        return
    print_table(side_by_side(found["rows"]))
    print(f"\n{protocol_line(found['protocol'])}")


def measure(
    pipelines: Sequence[str],
    data: str,
    settings: Settings,
    *,
    revision: str | None = None,
    variant: str | None = None,
    **loading: Any,
) -> dict[str, Any]:
    """Load all, refuse what cannot be compared, and measure: ``{"protocol", "rows"}``.

    ``revision``: of those on the Hub; ``variant``: of those that have it; ``loading``: what else
    :func:`diffnas.families.loading.load_teacher` takes besides the device.

    Raises:
        UserError: a pipeline or the data cannot be loaded, or images of different shapes.
    """
    # Only now: usage errors must not wait for torch.
    from diffnas.device import resolve_device

    place = resolve_device(settings.device)
    hush_diffusers()
    from diffnas.data import load_data
    from diffnas.data.meant import check_label_column
    from diffnas.families.loading import load_teacher
    from diffnas.families.origin import find
    from diffnas.measure.evaluate import evaluate as evaluate_
    from diffnas.measure.protocol import check_sampling
    from diffnas.measure.references import check_samples, check_sides

    folders = {source: find(source).folder for source in pipelines}
    on_hub = [source for source, folder in folders.items() if folder is None]
    varied = [
        source
        for source, folder in folders.items()
        if folder is None or variant is None or any(folder.rglob(f"*.{variant}*.safetensors"))
    ]

    def load(source: str) -> Teacher:
        # Beside pipelines that have it there may be others; where none has it, it is refused.
        return load_teacher(
            source,
            device=place,
            revision=revision if source in on_hub or not on_hub else None,
            variant=variant if source in varied or not varied else None,
            **loading,
        )

    loaded = {name: load(source) for name, source in zip(names(pipelines), pipelines, strict=True)}
    shape = common_shape(loaded)
    check_samples(data, shape, settings.evaluate)
    for each in loaded.values():
        check_sampling(each, settings.evaluate)
    classes = fewest_classes(loaded)
    check_label_column(settings.data.label_column, classes)
    channels, height, width = shape
    # Large sets would fill the memory. Where mapped files cannot be removed, they stay.
    temporary = TemporaryDirectory(prefix="diffnas-", ignore_cleanup_errors=True)
    with temporary as cache, show_progress() as progress:
        images = load_data(
            data,
            size=(height, width),
            channels=channels,
            cache=Path(cache),
            progress=progress,
            enough=partial(check_sides, data, settings.evaluate),
            classes=classes,
            captioned=any(teacher.family.takes_texts for teacher in loaded.values()),
            **settings.data.loading(),
        )
        if images.remark is not None:
            progress.say(images.remark)
        return evaluate_(loaded, images, settings.evaluate, progress=progress)


def common_shape(loaded: dict[str, Teacher]) -> tuple[int, int, int]:
    """The (C, H, W) that all pipelines make.

    Raises:
        UserError: they make images of different shapes.
    """
    shapes = {name: teacher.image_shape for name, teacher in loaded.items()}
    (first, shape), *others = shapes.items()
    for name, other in others:
        if other != shape:
            raise UserError(
                f"PIPELINE {name}: its images are {written(other)}, those of {first} "
                f"{written(shape)}; compare pipelines of one image shape"
            )
    return shape


def fewest_classes(loaded: dict[str, Teacher]) -> int | None:
    """How many classes all pipelines know that take one; None if none does."""
    known = (teacher.family.class_count(teacher.denoiser) for teacher in loaded.values())
    return min((count for count in known if count is not None), default=None)


def names(pipelines: Sequence[str]) -> list[str]:
    """A short name for each, no two alike: the last parts of its path, as few as tell it apart.

    The ``pipeline`` folder of a student goes by the student's name.
    """
    parts = [_parts(source) for source in pipelines]
    taken: list[str] = []
    for own in parts:
        others = [other for other in parts if other != own]
        length = next(
            (n for n in range(1, len(own)) if all(own[-n:] != other[-n:] for other in others)),
            len(own),
        )
        name = "/".join(own[-length:])
        # The same pipeline given twice.
        times = 1 + sum(one == name or one.startswith(f"{name} (") for one in taken)
        taken.append(name if times == 1 else f"{name} ({times})")
    return taken


def written(shape: tuple[int, int, int]) -> str:
    """``32 x 32, 3 channels``."""
    channels, height, width = shape
    return f"{width} x {height}, {channels} channel{'' if channels == 1 else 's'}"


def _parts(source: str) -> tuple[str, ...]:
    path = PurePath(source)
    parts = tuple(part for part in path.parts if part != path.anchor) or (source,)
    return parts[:-1] if len(parts) > 1 and parts[-1] == "pipeline" else parts
