"""The stages of a run up to the choice, each from what the one before left to one file or folder.

A file says in its own metadata what it was made from (a fingerprint), so a stage can tell on its
own whether its result is there, out of date or damaged; nothing else has to be kept in step.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from diffnas import effects, score_table, what_counts
from diffnas.architecture import FORMAT, Scores, Space, space_to_json
from diffnas.artifacts import current_json, current_tensors, save_tensors
from diffnas.budget import Budget
from diffnas.checkpoint import write_json
from diffnas.data import Data
from diffnas.device import device_name
from diffnas.families import Teacher
from diffnas.families.teaching import teaching
from diffnas.fingerprint import fingerprint
from diffnas.limits import option_metrics, within_latency
from diffnas.names import public_name
from diffnas.progress import Progress
from diffnas.scoring import score
from diffnas.select import made_of
from diffnas.settings import DEFAULT_RULE, Settings
from diffnas.slots import joint
from diffnas.supernet import Supernet
from diffnas.supernet_training import fit
from diffnas.trunk import Trunk, kept_channels, make_trunk, ranked_at_once


@dataclass(frozen=True)
class Job:
    """What all stages of one command share. ``settings`` are resolved (no gaps)."""

    path: Path
    teacher: Teacher
    origin: str  # fingerprint of teacher and data
    data: Data
    space: Space
    settings: Settings
    budget: Budget
    progress: Progress
    whole_steps: int | None = None  # of retraining, were it not cut short by max_steps

    @property
    def search(self) -> Path:
        """The folder of supernet and scores: every trunk has its own."""
        trunk = self.space.trunk
        return self.path if trunk is None else self.path / f"trunk-{trunk[0]}"

    @property
    def rule(self) -> str:
        """The rule that selects; a tolerance is the local rule's."""
        return "local" if self.budget.tolerance is not None else self.settings.select.rule

    @property
    def student(self) -> Path:
        """The student's folder, named after its budget."""
        by_default = self.budget.tolerance is not None or self.rule == DEFAULT_RULE
        suffix = "" if by_default else f"-{self.rule}"
        return self.path / "students" / f"{self.budget.name}{suffix}"


def trunk(job: Job) -> Trunk | None:
    """The teacher with the trunk of the space; None where that is the teacher's own."""
    if job.space.trunk is None:
        return None
    assert job.settings.supernet.batch_size is not None
    size = ranked_at_once(job.space.teacher.macs, job.settings.supernet.batch_size)
    made_from = fingerprint(job.origin, job.space.trunk, job.settings.seed, size)
    file = job.search / "trunk.safetensors"
    kept = current_tensors(file, made_from, job.progress.say)
    if kept is None:
        kept = kept_channels(
            job.teacher,
            job.data,
            job.space.trunk[0],
            batch_size=size,
            seed=job.settings.seed,
            progress=job.progress,
        )
        save_tensors(file, kept, made_from)
    return make_trunk(job.teacher, kept)


def supernet(job: Job) -> tuple[Supernet, str]:
    """The trained supernet and its fingerprint."""
    settings, narrow = job.settings, trunk(job)
    kept: list[Any] = [] if narrow is None else [{n: r.tolist() for n, r in narrow.kept.items()}]
    # Such modules were once trained with their block.
    again = ("outside", *outside) if (outside := job.teacher.family.outside) else ()
    made_from = fingerprint(
        job.origin,
        space_to_json(job.space),
        what_counts.of_supernet(settings),
        settings.seed,
        *what_counts.of_precision(settings),
        *kept,
        *again,
    )
    net = Supernet(job.teacher, job.space, narrow)
    folder = job.search / "supernet"
    file, checkpoint = folder / "supernet.safetensors", folder / "checkpoint.safetensors"
    found = current_tensors(file, made_from, job.progress.say)
    if found is not None:
        net.load_state_dict(found)
        return net, made_from
    count = settings.supernet.groups  # a group's checkpoint has its own blocks alone
    with teaching(job.teacher, settings.teacher_precision):
        seconds = fit(
            net,
            job.data,
            settings.supernet,
            seed=settings.seed,
            precision=settings.precision,
            checkpoint=checkpoint,
            fingerprint=made_from if count == 1 else fingerprint(made_from, count),
            progress=job.progress,
        )
    save_tensors(file, net.state_dict(), made_from, seconds=f"{seconds:.1f}")
    for left in folder.glob("checkpoint*.safetensors"):  # also of another number of groups
        left.unlink()
    return net, made_from


def scores(job: Job, net: Supernet, supernet_from: str) -> tuple[Scores, str]:
    """The score table and its fingerprint."""
    how = what_counts.of_block_losses(job.settings, job.space)
    # Those of layers of two streams once left out what became of the image.
    kinds = {slot.kind for block in job.space.blocks for slot in block.slots}
    again = ("text and image",) if joint.KIND in kinds else ()
    made_from = fingerprint(supernet_from, how, *again)

    def make(**given: Any) -> Scores:
        # Nobody may take the errors that earlier scores led to for these scores'.
        for end in ("", "-checkpoint"):
            (job.search / f"output-errors{end}.safetensors").unlink(missing_ok=True)
        return score(net, job.data, kind=job.settings.supernet.block_loss, **given)

    return _table(job, "scores", made_from, make), made_from


def output_errors(job: Job, net: Supernet, table: Scores, scores_from: str) -> tuple[Scores, str]:
    """What selection goes by, and its fingerprint; the score table where settings say so."""
    if job.settings.scored.by == "block":
        return table, scores_from
    how = what_counts.of_output_errors(job.settings)
    # Those of a narrower trunk were once wrong where a layer of a UNet's way down was left out.
    again = () if net.trunk is None else ("filled place by place",)
    made_from = fingerprint(scores_from, how, *again)
    measured = partial(effects.output_errors, net, job.data, table=table)
    return _table(job, "output-errors", made_from, measured), made_from


def _table(job: Job, name: str, made_from: str, make: Callable[..., Scores]) -> Scores:
    """The table of that name in the folder of the search, made if it is not there."""
    file, checkpoint = (job.search / f"{name}{end}.safetensors" for end in ("", "-checkpoint"))
    found = current_tensors(file, made_from, job.progress.say)
    if found is not None:
        return score_table.from_tensors(found, job.space)
    table = make(
        settings=job.settings.score,
        seed=job.settings.seed,
        checkpoint=checkpoint,
        fingerprint=made_from,
        progress=job.progress,
    )
    search = fingerprint(job.origin, *what_counts.of_search(job.settings, job.space))
    score_table.save(replace(table, search=search), file, made_from)
    checkpoint.unlink(missing_ok=True)
    return table


def architecture(
    job: Job, table: Scores, scores_from: str, judged: Scores, judged_from: str
) -> dict[str, Any]:
    """The content of ``architecture.json``: the chosen subnets, their edits, losses and costs.

    ``table``: block losses; ``judged``: what selection goes by.
    """
    rule, seed = job.rule, job.settings.seed
    # A latency holds on the device it was measured on.
    where = device_name(job.teacher.device) if job.budget.latency is not None else None
    made_from = fingerprint(judged_from, *made_of(rule), asdict(job.budget), seed, where)
    file = job.student / "architecture.json"
    found = current_json(file, made_from, job.progress.say)
    if found is not None:
        return found
    additive, whole = option_metrics(job.teacher, job.space, job.budget)
    chosen = within_latency(
        job.teacher, judged, job.budget, rule, seed=seed, additive=additive, whole=whole
    )
    content = {
        "format": FORMAT,
        "fingerprint": made_from,
        "scores": scores_from,
        "name": job.student.name,
        "budget": {k: asdict(v) for k, v in job.budget.limits().items()},
        "rule": rule,
        "trunk": job.space.trunk,
        "tolerance": chosen.tolerance,
        "teacher": {"source": public_name(job.teacher.source), **asdict(job.space.teacher)},
        "cost": asdict(chosen.cost),
        "predicted": chosen.predicted,
        "measured": chosen.measured,
        "blocks": chosen.architecture.blocks,
        "options": {
            block.name: {slot.path: [o.name for o in slot.options] for slot in block.slots}
            for block in job.space.blocks
        },
        "edits": chosen.architecture.edits(job.space),
        "losses": {
            block.name: {
                **_losses(table, judged, block.name, chosen.rows[block.name]),
                "macs": block.cost_of(chosen.architecture.blocks[block.name]).macs,
                "teacher_macs": block.cost.macs,
            }
            for block in job.space.blocks
        },
    }
    write_json(file, content)
    return content


def _losses(table: Scores, judged: Scores, name: str, row: int) -> dict[str, float]:
    """A chosen subnet's block loss beside its benchmark; so its error, where that was measured."""
    losses, chosen = table.blocks[name], judged.blocks[name]
    same = int((losses.choices == chosen.choices[row]).all(1).argmax())
    found = {"loss": float(losses.losses[same]), "benchmark": float(losses.losses[0])}
    if judged is not table:
        found |= {
            "output_error": float(chosen.losses[row]),
            "output_benchmark": float(chosen.losses[0]),
        }
    return found
