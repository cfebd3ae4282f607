"""The README.md of a student's pipeline folder: a model card in the Hub's form, from the run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diffnas.families import Teacher
from diffnas.names import OWN_SAMPLES, public_name
from diffnas.report.table import closing_rows
from diffnas.report.words import trial, unmeasured, words

OPTIMIZERS = {"adamw": "AdamW", "muon": "Muon"}

TOLD = ("classes", "captions", "holes", "guidance")
"""What the protocol has of samples only where the pipeline is told it."""

Json = Mapping[str, Any]


@dataclass(frozen=True)
class About:
    """What a card says that stands in no file of the run.

    ``task``: by the Hub's name; ``own_class``: whether the student's class is no stock one of
    diffusers and travels with it; ``device``: what latencies hold for.
    """

    pipeline: str
    task: str
    tags: tuple[str, ...]
    data: str
    device: str
    own_class: bool


def about(teacher: Teacher, data: str, device: str, *, own_class: bool) -> About:
    """Of a student of that teacher, trained on the data of that name."""
    pipeline = type(teacher.pipeline).__name__
    tags = ["diffnas", "diffusion", "neural-architecture-search"]
    # The Hub has no task of its own for holes, nor one for classes.
    if teacher.inpaints or "Img2Img" in pipeline:
        task = "image-to-image"
        tags += ["inpainting"] if teacher.inpaints else []
    elif teacher.family.takes_texts:
        task = "text-to-image"
    else:
        task = "unconditional-image-generation"
        classes = teacher.family.class_count(teacher.denoiser)
        tags += [] if classes is None else ["class-conditional"]
    return About(pipeline, task, tuple(tags), data, device, own_class)


def model_card(about: About, architecture: Json, made: Json, metrics: Json | None = None) -> str:
    """From ``architecture.json``, ``student.json`` and, once measured, ``metrics.json``."""
    source = architecture["teacher"]["source"]
    parts = [
        f"---\n{_front_matter(about, source)}---\n# {source}, smaller: {architecture['name']}",
        f"A smaller `{source}`, found by block-wise architecture search and retrained with the "
        "dynamic joint loss ([DiffNAS](https://arxiv.org/abs/2311.04950)).",
        trial(made),
        f"## Use\n\n{_use(about)}",
        f"## Cost and quality\n\n{_measured(about, architecture, metrics)}",
        f"## How it was made\n\n{_made(about, architecture, made)}",
        f"## Licence\n\nThat of `{source}` and its terms of use apply; this card adds none.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(about: About, source: str) -> str:
    lines = ["library_name: diffusers", f"pipeline_tag: {about.task}"]
    # Of a folder only its last part is known; only the Hub's ids have two.
    if "/" in source:
        lines.append(f"base_model: {source}")
    data = public_name(about.data)
    if "/" in data:
        lines.append(f"datasets: [{data.partition(':')[0]}]")
    lines.append(f"tags: [{', '.join(about.tags)}]")
    return "".join(f"{line}\n" for line in lines)


def _use(about: About) -> str:
    flag, how = "", "Plain diffusers loads it."
    if about.own_class:
        flag = ", trust_remote_code=True"
        how = (
            "The class of its denoiser is none of diffusers' own: its file travels in this folder, "
            "needs diffusers 0.38 or newer, and is run only with that flag. "
            "`diffnas.load(folder)` loads it without running code from the folder."
        )
    return (
        "```python\nfrom diffusers import DiffusionPipeline\n\n"
        f'pipeline = DiffusionPipeline.from_pretrained("path or Hub id"{flag})\n```\n\n'
        f"{how} It is a `{about.pipeline}`, called as its teacher is."
    )


def _measured(about: About, architecture: Json, metrics: Json | None) -> str:
    """The closing table and what it holds for; before that, what is counted on paper."""
    if metrics is None:
        counted = {"teacher": architecture["teacher"], "student": architecture["cost"]}
        return (
            f"{_table(counted)}\n\nOf one denoiser call at batch 1. Latency, memory and the "
            "quality of its images are not measured yet."
        )
    protocol = metrics["protocol"]
    told = "".join(f", {key} {words(protocol[key])}" for key in TOLD if key in protocol)
    deviation = "; ± is the deviation over the seeds" if len(protocol["seeds"]) > 1 else ""
    seeds = words(protocol["seeds"])
    facts = [
        f"Costs are of one denoiser call at batch 1, latency on {about.device} "
        f"(torch {protocol['torch']}).",
        f"Samples: {protocol['samples']} for each sampling seed ({seeds}), sampler "
        f"{protocol['sampler']}, {protocol['steps']} steps{told}{deviation}.",
        f"Distances: by {protocol['features']}, to {protocol['held_out_images']} held-out and "
        f"{protocol['seen_images']} seen images of {_data(about)}. The Fréchet distance from seen "
        f"to as many held-out images is {protocol['real_frechet_distance']}.",
    ]
    return (
        f"{_table(metrics)}\n\nLess is better, but for the distance to the nearest seen image: "
        f"much below the teacher's would mean copies.\n\n{_list(facts)}\n\n"
        f"What was not measured:\n\n{_list(unmeasured(metrics))}"
    )


def _made(about: About, architecture: Json, made: Json) -> str:
    facts = [
        f"Teacher: `{architecture['teacher']['source']}`",
        f"Budget: {architecture['name']}, by the rule {architecture['rule']}",
        f"Data: {_data(about)}",
    ]
    settings, how = made["settings"], made["settings"]["retrain"]
    facts.append(
        f"Retraining: {how['steps']} steps of {how['batch_size']} images, "
        f"{OPTIMIZERS[how['optimizer']]}, peak learning rate {how['learning_rate']:g}, "
        f"{settings['precision']}, seed {settings['seed']}"
    )
    return _list(facts)


def _data(about: About) -> str:
    own = about.data == OWN_SAMPLES
    return "the teacher's own samples" if own else f"`{public_name(about.data)}`"


def _table(metrics: Json) -> str:
    rows = [(row.label, row.teacher, row.student, row.ratio) for row in closing_rows(metrics)]
    head = [("", "teacher", "student", "ratio"), ("---", "---:", "---:", "---:")]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [*head, *rows])


def _list(lines: list[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
