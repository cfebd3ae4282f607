"""Reads what a run left in its folder. Stages not reached yet leave gaps, not errors."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml
from safetensors import SafetensorError
from safetensors.numpy import load_file

from diffnas.architecture import FORMAT
from diffnas.errors import UserError

Floats = npt.NDArray[np.float64]
Json = dict[str, Any]


@dataclass(frozen=True)
class BlockTable:
    """The scored subnets of one block: losses and MACs, both (subnets,)."""

    losses: Floats
    macs: Floats


@dataclass(frozen=True)
class StudentFiles:
    """One student: architecture.json, metrics.json and samples.png, as far as they exist."""

    name: str
    architecture: Json
    metrics: Json
    samples: bytes | None


@dataclass(frozen=True)
class RunFiles:
    """All that the page is made from.

    ``supernet`` and ``retrain`` (by student) are log records in the order of their steps.
    """

    name: str
    settings: Json
    plan: Json
    scores: dict[str, BlockTable]
    students: list[StudentFiles]
    supernet: list[Json]
    retrain: dict[str, list[Json]]


def read_run(run: Path) -> RunFiles:
    """Everything in the run folder.

    Raises:
        UserError: no run folder, a file that is broken, or one of a newer format.
    """
    if not run.is_dir():
        raise UserError(f"RUN {run}: no such folder; name the --out of a 'diffnas compress'")
    if not (run / "plan.json").exists() and not (run / "settings.yaml").exists():
        raise UserError(
            f"RUN {run}: no run folder (neither plan.json nor settings.yaml in it); "
            f"name the --out of a 'diffnas compress'"
        )
    supernet, retrain = _curves(run / "log.jsonl")
    folders = sorted(path.parent for path in run.glob("students/*/architecture.json"))
    return RunFiles(
        name=run.resolve().name,
        settings=_read_yaml(run / "settings.yaml"),
        plan=_read_json(run / "plan.json"),
        scores=_read_scores(run / "scores.safetensors"),
        students=[_read_student(folder) for folder in folders],
        supernet=supernet,
        retrain=retrain,
    )


def _read_student(folder: Path) -> StudentFiles:
    samples = folder / "samples.png"
    return StudentFiles(
        name=folder.name,
        architecture=_read_json(folder / "architecture.json"),
        metrics=_read_json(folder / "metrics.json"),
        samples=samples.read_bytes() if samples.exists() else None,
    )


def _read_json(path: Path) -> Json:
    if not path.exists():
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise _broken(path) from None
    if not isinstance(values, dict):
        raise _broken(path)
    if values.get("format", FORMAT) > FORMAT:
        raise UserError(
            f"{path}: format {values['format']} is newer than this DiffNAS reads ({FORMAT}); "
            f"pip install --upgrade diffnas"
        )
    return values


def _read_yaml(path: Path) -> Json:
    if not path.exists():
        return {}
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        raise _broken(path) from None
    return values if isinstance(values, dict) else {}


def _read_scores(path: Path) -> dict[str, BlockTable]:
    if not path.exists():
        return {}
    try:
        tensors = load_file(path)
    except SafetensorError:
        raise _broken(path) from None
    names = [key.removesuffix(".losses") for key in tensors if key.endswith(".losses")]
    return {
        name: BlockTable(
            tensors[f"{name}.losses"].astype(np.float64), tensors[f"{name}.macs"].astype(np.float64)
        )
        for name in names
        if f"{name}.macs" in tensors
    }


def _broken(path: Path) -> UserError:
    return UserError(f"{path}: unreadable; delete it and give the same 'diffnas compress' again")


def _curves(path: Path) -> tuple[list[Json], dict[str, list[Json]]]:
    """Records of both trainings; a step taken again after a resume counts once, the last time."""
    supernet: dict[int, Json] = {}
    retrain: dict[str, dict[int, Json]] = {}
    for record in _records(path):
        if "step" not in record:
            continue
        if record.get("stage") == "supernet":
            supernet[record["step"]] = record
        elif record.get("stage") == "retrain":
            retrain.setdefault(str(record.get("student", "")), {})[record["step"]] = record
    return (
        [supernet[step] for step in sorted(supernet)],
        {name: [steps[step] for step in sorted(steps)] for name, steps in retrain.items()},
    )


def _records(path: Path) -> Iterator[Json]:
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                record = json.loads(line)
            except ValueError:
                # A run that was killed may have left half a line.
                continue
            if isinstance(record, dict):
                yield record
