"""The run folder: the whole way from a teacher to a student's report, to be left and taken up."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from diffnas import judging, making, stages
from diffnas.architecture import FORMAT, space_to_json
from diffnas.artifacts import of_another_choice, read_json
from diffnas.budget import Budget
from diffnas.checkpoint import write_json
from diffnas.data import load_data
from diffnas.data.meant import check_label_column
from diffnas.defaults import resolve_for
from diffnas.device import resolve_device
from diffnas.embeddings import check_dropout, with_embeddings
from diffnas.errors import UserError
from diffnas.families.loading import load_teacher
from diffnas.families.noise import check_weighting
from diffnas.families.resting import awake
from diffnas.fingerprint import fingerprint, of_data, of_teacher
from diffnas.latents import encoding_on, with_latents
from diffnas.measure.protocol import check as check_evaluation
from diffnas.measure.protocol import check_sampling
from diffnas.measure.references import check_samples, check_sides, features_of
from diffnas.names import OWN_SAMPLES, STAGES
from diffnas.own_samples import own_samples
from diffnas.plan import check_budget, describe
from diffnas.progress import Progress
from diffnas.report import write_report
from diffnas.run_folder import check_apart, check_same_teacher, note_data, note_settings
from diffnas.run_log import RunLog
from diffnas.select import check_rule, check_tolerance
from diffnas.settings import Settings
from diffnas.stages import Job
from diffnas.student.saving import load
from diffnas.trunk_width import space_for


@dataclass(frozen=True)
class Student:
    """One student of a run."""

    path: Path

    def pipeline(self) -> Any:
        """The student as a diffusers pipeline.

        Raises:
            UserError: it is not made yet, or was of a choice before the present one.
        """
        self._check_made()
        return load(self.path / "pipeline")

    def metrics(self) -> dict[str, Any]:
        """What was measured of teacher and student.

        Raises:
            UserError: nothing was yet, or of a choice before the present one.
        """
        self._check_made()
        found = read_json(self.path / "metrics.json")
        if found is None:
            raise UserError(
                f"{self.path}: not measured yet; give the same 'diffnas compress' again"
            )
        return found

    def _check_made(self) -> None:
        made = read_json(self.path / "student.json")
        chosen = read_json(self.path / "architecture.json") or {}
        if made is None or of_another_choice(made, chosen):
            what = "not made yet" if made is None else "made of another choice than the present one"
            raise UserError(
                f"{self.path}: the student is {what}; give the same 'diffnas compress' again"
            )


@dataclass(frozen=True)
class Run:
    """A run folder; ``name`` is the student that was asked for."""

    path: Path
    name: str

    @property
    def students(self) -> dict[str, Student]:
        """All students made so far, by name."""
        folders = sorted(file.parent for file in self.path.glob("students/*/architecture.json"))
        return {folder.name: Student(folder) for folder in folders}


def compress(
    model: str,
    *,
    data: str,
    out: Path,
    budget: Budget,
    settings: Settings,
    until: str | None = None,
    revision: str | None = None,
    variant: str | None = None,
    trust_remote_code: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Make a student of a pipeline within a budget, or go on where an earlier call stopped.

    ``until`` names the last of :data:`diffnas.names.STAGES` to do. Every finished stage is kept;
    one whose settings changed is done again, and ``progress`` is told so.

    Raises:
        UserError: the model, the data or a setting cannot be used, or the budget is out of reach.
        RunError: training diverged or the disk is full; the last good checkpoint is kept.
    """
    check_rule(settings.select.rule)
    check_tolerance(budget, settings.select.rule)
    if settings.data.prompts is not None and data != OWN_SAMPLES:
        raise UserError(
            f"data.prompts = {settings.data.prompts}: only '--data {OWN_SAMPLES}' draws samples of "
            "prompts; leave it out"
        )
    if until is not None and until not in STAGES:
        raise UserError(f"until {until!r}: no such stage; one of {', '.join(STAGES)}")
    check_apart(out, model, data)
    device = resolve_device(settings.device)
    progress = progress or Progress()
    teacher = load_teacher(
        model,
        device=device,
        revision=revision,
        variant=variant,
        trust_remote_code=trust_remote_code,
    )
    # Whatever costs seconds to refuse, before images that take hours and gigabytes to decode.
    settings, space, why = space_for(settings, teacher.denoiser, teacher.family, budget)
    check_budget(teacher, space, budget)
    check_sampling(teacher, settings.evaluate)
    classes = teacher.family.class_count(teacher.denoiser)
    check_label_column(settings.data.label_column, classes)
    check_dropout(teacher, settings.data.condition_dropout or 0.0)
    check_weighting(teacher.scheduler.config, settings.retrain.snr_gamma)
    check_samples(data, teacher.image_shape, settings.evaluate)
    of_this = of_teacher(teacher)
    check_same_teacher(out, teacher.source, of_this)
    channels, height, width = teacher.image_shape
    enough = partial(check_sides, data, settings.evaluate)
    images = (
        own_samples(teacher, settings, out / "data", progress, enough)
        if data == OWN_SAMPLES
        else load_data(
            data,
            size=(height, width),
            channels=channels,
            cache=out / "data",
            progress=progress,
            classes=classes,
            captioned=teacher.family.takes_texts,
            shapes=teacher.shapes(settings.data.crop),
            enough=enough,
            **settings.data.loading(),
        )
    )
    if images.remark is not None:
        progress.say(images.remark)
    own = data == OWN_SAMPLES
    resolved, reasons = resolve_for(teacher, settings, images=len(images.seen), own_samples=own)
    whole, _ = resolve_for(teacher, settings.model_copy(update={"max_steps": None}))
    images = replace(images, condition_dropout=resolved.data.condition_dropout or 0.0)
    # By name, so that what 'auto' finds on another day cannot mix two kinds of features.
    named = features_of(images.name, settings.evaluate)
    resolved = resolved.model_copy(
        update={"evaluate": settings.evaluate.model_copy(update={"features": named})}
    )
    check_evaluation(teacher, images, resolved.evaluate)
    of_these = of_data(images)
    origin = fingerprint(of_this, of_these)
    out.mkdir(parents=True, exist_ok=True)
    with RunLog(out / "log.jsonl", progress) as log:
        job = Job(out, teacher, origin, images, space, resolved, budget, log, whole.retrain.steps)
        run = Run(out, job.student.name)
        note_settings(out / "settings.yaml", _uncapped(resolved, whole, settings), log)
        note_data(out, data, of_these, log)
        plan = {
            "format": FORMAT,
            "model": {
                "source": teacher.source,
                "fingerprint": of_this,
                "data": data,
                "data_fingerprint": of_these,
            },
            **describe(teacher, space, budget, resolved, why | reasons),
            "space": space_to_json(space),
        }
        write_json(out / "plan.json", plan)
        for note in plan["notes"]:
            log.say(note)
        _stages(job, until)
    return run


def _stages(job: Job, until: str | None) -> None:
    """The stages after the plan. A result that is there costs only its reading."""
    last = STAGES.index(until or STAGES[-1])
    if last < 1:
        return
    cache = job.path / "data"
    known = with_embeddings(job.teacher, job.data, cache, job.progress)
    job = replace(job, data=with_latents(job.teacher, known, cache, job.progress))
    with awake(encoding_on(job.teacher, job.data), job.teacher.device):
        _searched(job, last)


def _searched(job: Job, last: int) -> None:
    """The stages after the plan, up to number ``last``, with all data at hand."""
    net, made_from = stages.supernet(job)
    if last < 2:
        return
    scores = stages.scores(job, net, made_from)
    judged = stages.output_errors(job, net, *scores)
    if last < 3:
        return
    chosen = stages.architecture(job, *scores, *judged)
    if last < 4:
        return
    student_from = making.student(job, net, made_from, chosen)
    if last < 5:
        return
    judging.metrics(job, student_from)
    if last < 6:
        return
    write_report(job.path)


def _uncapped(capped: Settings, whole: Settings, given: Settings) -> Settings:
    """Settings that give the capped ones again, with the steps of those without ``max_steps``.

    A run that is given them can tell that it is cut short, and without ``max_steps`` it is the
    whole one: what followed from the fewer steps is left open, unless it was ``given``.
    """
    supernet: dict[str, Any] = {"steps": whole.supernet.steps}
    retrain: dict[str, Any] = {"steps": whole.retrain.steps}
    if capped.retrain.steps != whole.retrain.steps:
        retrain["ema_decay"] = given.retrain.ema_decay
    parts = {
        "supernet": capped.supernet.model_copy(update=supernet),
        "retrain": capped.retrain.model_copy(update=retrain),
    }
    return capped.model_copy(update=parts)
