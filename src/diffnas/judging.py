"""The last stage of a run: teacher and student measured and drawn under one protocol."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import safe_open

from diffnas.architecture import FORMAT
from diffnas.artifacts import current_json
from diffnas.checkpoint import write_atomically, write_json, write_text
from diffnas.device import device_name
from diffnas.families import Teacher
from diffnas.fingerprint import fingerprint
from diffnas.making import card
from diffnas.measure.evaluate import cost_rows, draw, quality_row
from diffnas.measure.grid import side_by_side
from diffnas.measure.protocol import judged_by, protocol, told
from diffnas.stages import Job
from diffnas.student.saving import load_component

SHOWN = 32
"""Images on each side of samples.png."""


def metrics(job: Job, student_from: str) -> dict[str, Any]:
    """The content of ``metrics.json``; ``samples.png`` beside it, the figures in the model card."""
    settings = job.settings.evaluate
    judged = judged_by(job.teacher, settings)
    made_from = fingerprint(student_from, judged, device_name(job.teacher.device))
    file, picture = job.student / "metrics.json", job.student / "samples.png"
    found = current_json(file, made_from, job.progress.say)
    if found is not None and picture.exists():
        return found
    # As it was saved; all else in its pipeline is the teacher's.
    denoiser = load_component(job.student / "pipeline", job.teacher.family.component)
    denoiser.to(job.teacher.device).eval().requires_grad_(False)
    small = replace(job.teacher, source=str(job.student / "pipeline"), denoiser=denoiser)
    costs = cost_rows({"teacher": job.teacher, "student": small})
    content = {
        "format": FORMAT,
        "fingerprint": made_from,
        "protocol": protocol(job.data, settings, job.teacher.device, told(job.teacher, settings)),
        "teacher": costs["teacher"] | _teacher_quality(job),
        "student": costs["student"] | _quality(job, small, file, made_from),
        "seconds": _seconds(job),
    }
    left, right = (
        draw(side, job.data, settings, SHOWN, seed=settings.seeds[0])
        for side in (job.teacher, small)
    )
    write_atomically(picture, lambda path: side_by_side(left, right).save(path, format="PNG"))
    chosen, made = (_read(job.student / f"{name}.json") for name in ("architecture", "student"))
    # Before the file that says that all is done, and never again: people add to their cards.
    write_text(job.student / "pipeline" / "README.md", card(job, denoiser, chosen, made, content))
    write_json(file, content)
    _checkpoint(file).unlink(missing_ok=True)
    return content


def _read(file: Path) -> dict[str, Any]:
    """What an earlier stage left there."""
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content


def _seconds(job: Job) -> dict[str, float]:
    """What the long stages took, over all the commands that worked on them."""
    states = {
        "supernet": job.search / "supernet" / "supernet.safetensors",
        "scores": job.search / "scores.safetensors",
    }
    if job.settings.scored.by == "output":
        states["output errors"] = job.search / "output-errors.safetensors"
    found = {}
    for stage, file in states.items():
        with safe_open(file, framework="pt") as state:
            found[stage] = float(state.metadata()["seconds"])
    return {**found, "retrain": _read(job.student / "student.json")["seconds"]}


def _teacher_quality(job: Job) -> dict[str, Any]:
    """Measured once for all students of the run."""
    file = job.path / "teacher.json"
    judged = judged_by(job.teacher, job.settings.evaluate)
    made_from = fingerprint(job.origin, judged)
    found = current_json(file, made_from, job.progress.say)
    if found is None:
        row = _quality(job, job.teacher, file, made_from)
        found = {"format": FORMAT, "fingerprint": made_from, "row": row}
        write_json(file, found)
        _checkpoint(file).unlink(missing_ok=True)
    row = found["row"]
    return dict(row)


def _quality(job: Job, pipeline: Teacher, file: Path, made_from: str) -> dict[str, Any]:
    """A row for that file; the sampling seeds done are kept beside it until it is written."""
    return quality_row(
        pipeline,
        job.data,
        job.settings.evaluate,
        job.progress,
        checkpoint=_checkpoint(file),
        fingerprint=made_from,
    )


def _checkpoint(file: Path) -> Path:
    return file.with_name(f"{file.stem}-checkpoint.json")
