"""The Python front: the command line's words as functions, values as a program has them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffnas import run as runs
from diffnas.alone import alone_in, check_folder
from diffnas.budget import Written, check_alone, parse_budget
from diffnas.errors import UserError
from diffnas.names import folder_name
from diffnas.progress import Progress
from diffnas.run import Run
from diffnas.settings import load as load_settings
from diffnas.settings import parse
from diffnas.smallest import compress_smallest


def compress(
    model: str | Path,
    *,
    data: str | Path,
    out: str | Path | None = None,
    macs: Written = None,
    params: Written = None,
    latency: Written = None,
    memory: Written = None,
    tolerance: Written = None,
    smallest: bool = False,
    settings: Mapping[str, Any] | str | Path | None = None,
    until: str | None = None,
    revision: str | None = None,
    variant: str | None = None,
    trust_remote_code: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Make a smaller diffusion model at par with ``model``; the same call goes on where it stopped.

    ``model``: a diffusers pipeline folder, a Hub id or 'digits'; ``data``: a folder of images, a
    Hub data set id, 'digits', or 'teacher' for its own samples; ``out``: the run folder
    (``runs/<model's name>``). Budgets are of the denoiser: a share (0.5, '50%') or an amount
    ('3.1G', '20M', '12ms', '2GiB'); all given must hold, and none given means ``macs=0.5``.
    ``tolerance`` instead: each block's error may be so many times that of the teacher's own
    options. ``smallest`` lowers the MACs instead, until quality after retraining no longer holds;
    it takes no ``until``. ``settings``: values, nested ({'retrain': {'steps': 500}}) or
    by dotted name ({'retrain.steps': 500}), or a YAML file. ``until``: the last stage to run.
    ``revision``, ``variant``, ``trust_remote_code``: of the model, as on the command line.
    ``progress``: what hears of the work; without one nothing is shown.

    Raises:
        UserError: a value that cannot be used, or a budget out of reach.
        RunError: training diverged or the disk is full; the last good checkpoint is kept.
    """
    places = {"model": model, "data": data, "out": "runs" if out is None else out}
    for name, place in places.items():
        if not isinstance(place, str | Path) or place == "":
            raise UserError(f"{name} = {place!r}: names nothing; give a name or a folder")
    limits = {"macs": macs, "params": params, "latency": latency, "memory": memory}
    if smallest:
        check_alone("smallest", {**limits, "tolerance": tolerance, "until": until})
    if settings is None or isinstance(settings, Mapping):
        chosen = parse(settings or {})
    elif isinstance(settings, str | Path):
        chosen = load_settings(Path(settings))
    else:
        raise UserError(f"settings = {settings!r}: holds none; give values by name, or a YAML file")
    folder = Path("runs") / folder_name(str(model)) if out is None else _home(Path(out))
    given: dict[str, Any] = {
        "data": _named(data),
        "out": folder,
        "settings": chosen,
        "revision": revision,
        "variant": variant,
        "trust_remote_code": trust_remote_code,
        "progress": progress,
    }
    check_folder("--out", folder)
    with alone_in(folder):
        if smallest:
            return compress_smallest(_named(model), **given)
        budget = parse_budget(**limits, tolerance=tolerance)
        return runs.compress(_named(model), budget=budget, until=until, **given)


def _named(source: str | Path) -> str:
    """A path is a folder, also if it is called 'digits' or 'teacher'."""
    return str(_home(source).absolute()) if isinstance(source, Path) else source


def _home(path: Path) -> Path:
    """With the home that a ``~`` stands for."""
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise UserError(f"{path}: {error}") from None
