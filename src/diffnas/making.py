"""The stage that makes the student: built, retrained, saved as a pipeline with its model card."""

import inspect
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from diffnas import what_counts
from diffnas.architecture import FORMAT, Architecture, Cost
from diffnas.artifacts import current_json, read_json, whole_pipeline
from diffnas.checkpoint import check_free, load_state, write_json
from diffnas.device import device_name
from diffnas.families import Teacher
from diffnas.families.teaching import teaching
from diffnas.fingerprint import fingerprint
from diffnas.model_card import about, model_card
from diffnas.retrain import fresh_weights, retrain
from diffnas.stages import Job
from diffnas.student.modeling import EditedModel
from diffnas.student.saving import PIPELINE, save_pipeline
from diffnas.student.stock import as_model, as_stock, stock_class
from diffnas.supernet import Supernet


def student(job: Job, net: Supernet, supernet_from: str, chosen: Mapping[str, Any]) -> str:
    """Build and retrain the student, save it as a pipeline folder; its fingerprint.

    The supernet's weights are let go once the student has its own.
    """
    settings = job.settings
    how = what_counts.of_retraining(settings.retrain)
    made_from = fingerprint(supernet_from, chosen["edits"], how, settings.seed)
    folder, note = job.student / "pipeline", job.student / "student.json"
    finished = current_json(note, made_from, job.progress.say)
    if finished is not None and whole_pipeline(folder, finished.get("files", ())):
        return made_from
    if not note.exists():
        check_free(folder, *PIPELINE)  # now, not after the training
    model, kind = _initial(job, net, chosen), stock_class(job.teacher.denoiser)
    net.blocks.clear()  # room for the training: the student has what it needs of them
    if finished is not None:
        whole = as_stock(model, kind)
        if _with_saved_weights(whole, folder / job.teacher.family.component):
            job.progress.say(f"{folder}: not whole; it is saved again, with the weights it has")
            _save(job, whole, _own_card(job, whole, chosen, finished), finished)
            return made_from
        job.progress.say(f"{folder}: damaged; it is made again")
    for stale in ("metrics.json", "samples.png"):
        (job.student / stale).unlink(missing_ok=True)
    checkpoint = job.student / "checkpoints" / "retrain.safetensors"
    with teaching(job.teacher, settings.teacher_precision):
        seconds = retrain(
            model,
            job.teacher,
            job.data,
            settings.retrain,
            seed=settings.seed,
            precision=settings.precision,
            trunk=net.trunk,
            checkpoint=checkpoint,
            fingerprint=made_from,
            progress=job.progress,
            log={"student": job.student.name},
        )
    model = as_stock(model, kind)
    content = {
        "format": FORMAT,
        "fingerprint": made_from,
        "edits": chosen["edits"],  # architecture.json may get another choice, not made yet
        "seconds": round(seconds, 1),
        # The run's settings.yaml is of its last command, which may have made another student.
        "settings": {
            "seed": settings.seed,
            "precision": settings.precision,
            "teacher_precision": settings.teacher_precision,
            "retrain": settings.retrain.model_dump(mode="json"),
        },
        "whole_steps": job.whole_steps,
    }
    _save(job, model, card(job, model, chosen, content), content)
    checkpoint.unlink(missing_ok=True)
    with suppress(OSError):  # it may hold something else
        checkpoint.parent.rmdir()
    return made_from


def _save(job: Job, model: Any, text: str, content: Mapping[str, Any]) -> None:
    """Write the pipeline folder, and then the note that says which files are in it."""
    folder, note = job.student / "pipeline", job.student / "student.json"
    ours, before = note.exists(), read_json(note) or {}
    if before.get("fingerprint") != content["fingerprint"]:
        note.unlink(missing_ok=True)  # of another student; of this one it says what can be mended
    save_pipeline(_pipeline(job.teacher, model), folder, text, ours=ours)
    files = sorted(str(file.relative_to(folder)) for file in folder.glob("*/*") if file.is_file())
    write_json(note, {**content, "files": files})


def _with_saved_weights(model: Any, folder: Path) -> bool:
    """Give a model the weights in a folder, if all are there and whole; whether they are."""
    tensors = {}
    for file in folder.glob("*.safetensors"):
        if file.name.count(".") == 1:  # variants that somebody added have more
            tensors.update((load_state(file) or ({}, {}))[0])
    shapes = {name: each.shape for name, each in tensors.items()}
    if shapes != {name: each.shape for name, each in model.state_dict().items()}:
        return False  # untouched: it is trained from where it begins
    model.load_state_dict(tensors)
    return True


def _own_card(job: Job, model: Any, chosen: Mapping[str, Any], made: Mapping[str, Any]) -> str:
    """The model card that is there, to which people may have added; else a new one."""
    try:
        return (job.student / "pipeline" / "README.md").read_text(encoding="utf-8")
    except (FileNotFoundError, UnicodeDecodeError):
        return card(job, model, chosen, made, read_json(job.student / "metrics.json"))


def card(
    job: Job,
    model: Any,
    chosen: Mapping[str, Any],
    made: Mapping[str, Any],
    metrics: Mapping[str, Any] | None = None,
) -> str:
    """The model card of that student, by the contents of its files."""
    where = device_name(job.teacher.device)
    own_class = isinstance(model, EditedModel)
    return model_card(
        about(job.teacher, job.data.name, where, own_class=own_class), chosen, made, metrics
    )


def _initial(job: Job, net: Supernet, chosen: Mapping[str, Any]) -> Any:
    """The student before retraining, with the supernet's weights or fresh ones.

    Its blocks are compared with the teacher's, which a stock class's may not be: of a level that
    lost a layer they hand on one tensor less.
    """
    teacher: Any = job.teacher.denoiser
    built = net.build(Architecture(chosen["blocks"])).state_dict()
    model = as_model(teacher.config, chosen["edits"], built, stock_class(teacher), edited=True)
    if job.settings.retrain.init == "fresh":
        fresh_weights(model, job.settings.seed)
    expected = Cost(**chosen["cost"]).params
    actual = sum(parameter.numel() for parameter in model.parameters())
    assert actual == expected, f"{actual} parameters built, {expected} foretold"
    return model


def _pipeline(teacher: Teacher, denoiser: Any) -> Any:
    """The teacher's pipeline with another denoiser; all other components are its own."""
    kind, components = type(teacher.pipeline), teacher.pipeline.components
    taken = inspect.signature(kind.__init__).parameters
    values = {
        name: value
        for name, value in teacher.pipeline.config.items()
        if name in taken and name not in components
    }
    pipeline = kind(**{**components, teacher.family.component: denoiser}, **values)
    # Some take a value, the names of classes for example, and forget it when they are saved.
    pipeline.register_to_config(**values)
    return pipeline
