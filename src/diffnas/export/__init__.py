"""A pipeline's networks for other runtimes: a file per format.

A format says which packages it ``NEEDS``, what its ``FILE`` is called, how to ``write`` a graph and
how to ``load`` it again as a function of named arrays. Folders and names of inputs are those of
Hugging Face's optimum: ``unet/model.onnx``, ``vae_decoder/model.onnx``.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from diffnas.architecture import FORMAT
from diffnas.artifacts import read_json
from diffnas.checkpoint import new_folder, write_json
from diffnas.errors import RunError, UserError
from diffnas.export.graph import Graph, graphs
from diffnas.families import Teacher
from diffnas.measure.latency import latency_ms
from diffnas.names import FORMATS, public_name
from diffnas.progress import Progress

TOLERANCE = 1e-4
"""Largest difference from PyTorch's output, over its largest value where that is above 1."""

ROUNDS = 5
"""In which a file and PyTorch are timed in turns, at the least."""

SECONDS = 1.0
"""While these last there are more rounds: of small networks twenty would be over in no time."""

BATCHES = (1, 3)
"""Sizes at which every file is compared with PyTorch."""

Run = Callable[[Mapping[str, npt.NDArray[Any]]], npt.NDArray[Any]]


@dataclass(frozen=True)
class Part:
    """One exported network.

    ``file``: in the folder; ``difference``: largest, from PyTorch's output; ``pytorch_ms`` and
    ``runtime_ms``: of one call at batch 1, taken in turns on this machine's CPU.
    """

    file: str
    bytes: int
    difference: float
    pytorch_ms: float
    runtime_ms: float


def find_format(name: str) -> ModuleType:
    """The module of a format, once the packages that it needs are there.

    Raises:
        UserError: no such format.
        ModuleNotFoundError: a package is missing.
    """
    if name not in FORMATS:
        raise UserError(f"export {name}: unknown format; one of {', '.join(FORMATS)}")
    found = importlib.import_module(f"diffnas.export.{name}")
    for package in found.NEEDS:
        importlib.import_module(package)
    return found


def export(
    name: str, pipeline: Teacher, out: Path, progress: Progress | None = None
) -> dict[str, Part]:
    """Write the denoiser, and a decoder if it has one, in that format; by component.

    ``pipeline`` is on the CPU. Batch sizes stay free. Each file is loaded again and compared with
    PyTorch before the folder appears; beside them go the scheduler's config and ``export.json``.

    Raises:
        UserError: no such format, or something that is no export is in the way, be it one file
            beside an earlier export.
        RunError: a file gives other values than PyTorch does, or the disk is full.
    """
    form, progress = find_format(name), progress or Progress()
    _check_nothing_added(out)
    parts: dict[str, Part] = {}
    with new_folder(out, "export.json", "an exported pipeline") as folder, torch.no_grad():
        found = graphs(pipeline)
        progress.start("export", len(found))
        for done, (component, graph) in enumerate(found.items(), 1):
            file = folder / component / form.FILE
            file.parent.mkdir()
            form.write(graph, file)
            parts[component] = _checked(graph, form.load(file), file, folder)
            progress.update(done)
        progress.stop()
        pipeline.pipeline.scheduler.save_pretrained(folder / "scheduler")
        content = {
            "format": FORMAT,
            "kind": name,
            "model": public_name(pipeline.source),
            "inputs": {component: list(graph.example) for component, graph in found.items()},
            "parts": {component: asdict(part) for component, part in parts.items()},
        }
        write_json(folder / "export.json", content)
    return parts


def _check_nothing_added(out: Path) -> None:
    """Raise UserError for a file beside an earlier export, with which it would be removed."""
    parts = (read_json(out / "export.json") or {}).get("parts")
    if not isinstance(parts, dict):
        return  # no export, which is refused where the folder is made
    ours = ["export.json", "scheduler/*"]
    ours += [str(Path(part["file"]).with_suffix(".*")) for part in parts.values()]
    for file in sorted(each for each in out.rglob("*") if not each.is_dir()):
        name = file.relative_to(out).as_posix()
        if not file.name.startswith(".") and not any(fnmatch(name, pattern) for pattern in ours):
            raise UserError(
                f"output {out}: {name} is not of the export that is there, and would be removed "
                "with it; move it away, or name another folder"
            )


def _checked(graph: Graph, run: Run, file: Path, folder: Path) -> Part:
    worst, calls = 0.0, {}
    for size in BATCHES:
        inputs = graph.random_inputs(size)
        given = {key: value.numpy() for key, value in inputs.items()}
        wanted, made = graph(*inputs.values()).numpy(), run(given)
        scale = max(1.0, float(np.abs(wanted).max()))
        difference = float(np.abs(made - wanted).max()) / scale
        if not difference <= TOLERANCE:
            raise RunError(
                f"{file.relative_to(folder)}: differs from PyTorch by {difference:.1e} at batch "
                f"{size}, more than {TOLERANCE:.0e}; nothing was written: please report it"
            )
        worst = max(worst, difference)
        calls[size] = (lambda i=inputs: graph(*i.values()), lambda g=given: run(g))
    pytorch, runtime = calls[1]
    calls_at_1 = {"pytorch": pytorch, "runtime": runtime}
    milliseconds = latency_ms(calls_at_1, device="cpu", repeats=ROUNDS, seconds=SECONDS)
    size = sum(each.stat().st_size for each in file.parent.iterdir())
    where = file.relative_to(folder).as_posix()
    return Part(where, size, worst, milliseconds["pytorch"], milliseconds["runtime"])
