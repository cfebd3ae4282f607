"""Whether a folder can be a run's, and its note of the settings that it was last given."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from diffnas.artifacts import check_format, read_json
from diffnas.checkpoint import write_text
from diffnas.errors import UserError
from diffnas.names import OWN_SAMPLES
from diffnas.progress import Progress
from diffnas.settings import Settings, saved_settings


def check_apart(out: Path, model: str, data: str) -> None:
    """Raise UserError for a run folder whose files would join the data, or the model's own."""
    where, images = out.resolve(), Path(data).expanduser()
    named = str(data) in (OWN_SAMPLES, "digits")  # no folders, even if some are called so
    if not named and images.is_dir():
        images, kept = images.resolve(), (out / "data").resolve()
        if where.is_relative_to(images):
            raise UserError(
                f"--out {out}: lies in --data {data}, whose images its pictures would join; name "
                "another folder"
            )
        if kept.is_relative_to(images):
            raise UserError(
                f"--out {out}: what a run keeps of its images goes to {out / 'data'}, among those "
                f"of --data {data}; give --out another folder"
            )
    folder = Path(model).expanduser()
    if folder.is_dir() and where == folder.resolve():
        raise UserError(f"--out {out}: is the model's own folder; name another")
    if any((out / name).exists() for name in ("model_index.json", "config.json")):
        raise UserError(f"--out {out}: is the folder of a model, or a part of one; name another")
    for name in ("data", "students", "supernet"):
        if (out / name).exists() and not (out / name).is_dir():
            raise UserError(
                f"--out {out}: {name}, which a run has as a folder, is a file there; name another "
                "folder"
            )


def is_run(folder: Path, plan: Mapping[str, Any]) -> bool:
    """Whether a run began there: its log is, or a plan that names its teacher."""
    model = plan.get("model")
    return (folder / "log.jsonl").exists() or (isinstance(model, dict) and "fingerprint" in model)


def check_same_teacher(out: Path, source: str, of_this: str) -> None:
    """Raise UserError if the folder belongs to another teacher, a newer DiffNAS or no run."""
    file = out / "plan.json"
    plan = read_json(file) or {}  # a damaged one is written again
    check_format(file, plan)
    if not is_run(out, plan):
        _check_replaceable(out)
    other = plan.get("model")
    if not isinstance(other, dict) or "fingerprint" not in other:
        return  # stopped before it had a plan, or that is damaged
    if other["fingerprint"] != of_this:
        raise UserError(
            f"--out {out}: a run of another teacher ({other.get('source')}, not {source}, or its "
            "weights have changed); give another folder"
        )


def note_data(out: Path, data: str, of_these: str, progress: Progress) -> None:
    """Say that the run's images are others than before, by its plan, where they are."""
    model = (read_json(out / "plan.json") or {}).get("model")
    before = model if isinstance(model, dict) else {}
    if before.get("data_fingerprint", of_these) == of_these:
        return
    if before.get("data") == data:
        what = "its images, or what is made of them, are not those that this run had before"
    else:
        what = f"not the images that this run had before, which were of {before.get('data')}"
    progress.say(f"--data {data}: {what}; what was made of those is made again where it is used")


def _check_replaceable(out: Path) -> None:
    """Raise UserError if files that a run writes are there, in a folder that is no run's."""
    for name in ("plan.json", "settings.yaml", "report.html"):
        if (out / name).exists():
            raise UserError(
                f"--out {out}: has a {name} that is no run's and would be replaced; name another "
                "folder"
            )


def note_settings(file: Path, settings: Settings, progress: Progress) -> None:
    """Write the settings; say which differ from those written before."""
    values = settings.model_dump(mode="json")
    if file.exists():
        before = saved_settings(file)
        old, new = _flat(before), _flat(values)
        changed = [
            f"{key} {old[key]} -> {value}"
            for key, value in new.items()
            if key in old and old[key] != value
        ]
        if changed:
            progress.say(f"settings changed: {', '.join(changed)}")
    write_text(file, yaml.safe_dump(values, sort_keys=False))


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
