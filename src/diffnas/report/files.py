"""Reads what a run left in its folder. Stages not reached yet leave gaps, not errors."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from diffnas.architecture import Floats
from diffnas.errors import UserError
from diffnas.settings import text as yaml_text

Json = dict[str, Any]


@dataclass(frozen=True)
class BlockTable:
    """The scored subnets of one block: losses and MACs, both (subnets,)."""

    losses: Floats
    macs: Floats


@dataclass(frozen=True)
class StudentFiles:
    """One student's files, as far as they exist.

    ``made``: student.json, with the settings of its retraining; ``samples``: a PNG.
    """

    name: str
    architecture: Json
    made: Json
    metrics: Json
    samples: bytes | None


@dataclass(frozen=True)
class RunFiles:
    """All that the page is made from.

    ``scored``: fingerprint of the score table; ``supernet`` and ``retrain`` (by student) are log
    records in the order of their steps.
    """

    name: str
    settings: Json
    plan: Json
    scores: dict[str, BlockTable]
    scored: str
    students: list[StudentFiles]
    supernet: list[Json]
    retrain: dict[str, list[Json]]


def read_run(run: Path) -> RunFiles:
    """Everything in the run folder.

    Raises:
        UserError: no run folder, a file that is broken, or one of a newer format.
    """
    from diffnas.run_folder import is_run

    if not run.is_dir():
        raise UserError(f"RUN {run}: no such folder; name the --out of a 'diffnas compress'")
    if not (run / "plan.json").exists() and not (run / "settings.yaml").exists():
        raise UserError(
            f"RUN {run}: no run folder (neither plan.json nor settings.yaml in it); "
            f"name the --out of a 'diffnas compress'"
        )
    plan = _read_json(run / "plan.json")
    if not is_run(run, plan):
        raise UserError(f"RUN {run}: its plan.json and settings.yaml are no run's; name another")
    trunk = (plan.get("space") or {}).get("trunk")
    supernet, retrain = _curves(run / "log.jsonl", trunk)
    scores, scored = _read_scores(run / f"trunk-{trunk[0]}" if trunk else run)
    folders = sorted(path.parent for path in run.glob("students/*/architecture.json"))
    return RunFiles(
        name=run.resolve().name,
        settings=_read_yaml(run / "settings.yaml"),
        plan=plan,
        scores=scores,
        scored=scored,
        students=[_read_student(folder) for folder in folders],
        supernet=supernet,
        retrain=retrain,
    )


def _read_student(folder: Path) -> StudentFiles:
    from diffnas.artifacts import of_another_choice

    samples = folder / "samples.png"
    chosen, made = _read_json(folder / "architecture.json"), _read_json(folder / "student.json")
    if of_another_choice(made, chosen):
        return StudentFiles(folder.name, chosen, made={}, metrics={}, samples=None)
    return StudentFiles(
        name=folder.name,
        architecture=chosen,
        made=made,
        metrics=_read_json(folder / "metrics.json"),
        samples=samples.read_bytes() if samples.exists() else None,
    )


def _read_json(path: Path) -> Json:
    from diffnas.artifacts import check_format, read_json

    if not path.exists():
        return {}
    values = read_json(path)
    if values is None:
        raise _broken(path)
    check_format(path, values)
    return values


def _read_yaml(path: Path) -> Json:
    if not path.exists():
        return {}
    try:
        values = yaml_text.read(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        raise _broken(path) from None
    return values if isinstance(values, dict) else {}


def _read_scores(folder: Path) -> tuple[dict[str, BlockTable], str]:
    from diffnas.artifacts import check_format
    from diffnas.checkpoint import load_state

    path = folder / "scores.safetensors"
    if not path.exists():
        return {}, ""
    state = load_state(path)
    if state is None:
        raise _broken(path)
    tensors, meta = state
    check_format(path, meta)
    names = [key.removesuffix(".losses") for key in tensors if key.endswith(".losses")]
    tables = {
        name: BlockTable(
            tensors[f"{name}.losses"].double().numpy(), tensors[f"{name}.macs"].double().numpy()
        )
        for name in names
        if f"{name}.macs" in tensors
    }
    return tables, meta.get("fingerprint", "")


def _broken(path: Path) -> UserError:
    return UserError(f"{path}: unreadable; delete it and give the same 'diffnas compress' again")


def _curves(path: Path, trunk: object) -> tuple[list[Json], dict[str, list[Json]]]:
    """Records of the supernet with that trunk and of all students, in the order of their steps.

    A training begins with a record that says ``after`` which step, 0 or that of its checkpoint:
    later steps that were logged before it were lost, or belong to a training of other settings.
    """
    supernets: dict[str, list[Json]] = {}
    retrain: dict[str, list[Json]] = {}
    for record in _records(path):
        if record.get("stage") == "supernet":
            own = supernets.setdefault(repr(record.get("trunk")), [])
        elif record.get("stage") == "retrain":
            own = retrain.setdefault(str(record.get("student", "")), [])
        else:
            continue
        if isinstance(after := record.get("after"), int):
            own[:] = [
                earlier
                for earlier in own
                if earlier["step"] <= after or _of_another_group(earlier, record)
            ]
        elif isinstance(record.get("step"), int):
            own.append(record)
    return supernets.get(repr(trunk), []), {
        student: records for student, records in retrain.items() if records
    }


def _of_another_group(earlier: Json, record: Json) -> bool:
    """Whether both are of one training whose blocks are trained in groups, and of two of them."""
    return earlier.get("groups") == record.get("groups") and earlier.get("group") != record.get(
        "group"
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
