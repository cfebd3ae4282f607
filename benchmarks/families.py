"""Small trained teachers of every family, each compressed to half its MACs by the one command.

    python benchmarks/families.py texts --teachers runs/shapes --data runs/shapes/images \
        --out runs/families

`train_shapes.py` makes the teachers. Beside the Fréchet distance stands a verdict on what samples
show (`shapes/verdict.py`; on digits a support vector machine, trained on seen ones): the share that
shows what was asked for, and for shapes the distance from the nearest drawing. Captions and classes
are asked for equally often, teacher and student get the same noise. `--control` adds the teacher
trained on for the student's steps. Every FORM is an entry of benchmarks/results/families.json. The
same command goes on.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from protocol import COLUMNS, arguments, assignments, value
from shapes.drawing import WORDS, drawn
from shapes.forms import FORMS
from shapes.verdict import seen, shares_right
from sklearn.svm import SVC
from trained import ALONE, Bench, bench, trained_row

from diffnas import settings as all_settings
from diffnas.budget import parse_budget
from diffnas.checkpoint import write_json
from diffnas.cli.progress import show_progress
from diffnas.data import to_float
from diffnas.embeddings import with_embeddings
from diffnas.families import Teacher
from diffnas.families.conditions import CLASSES, Condition
from diffnas.families.loading import load_teacher
from diffnas.families.sampling import to_uint8
from diffnas.latents import with_latents
from diffnas.progress import Progress
from diffnas.run import compress
from diffnas.settings import Settings

SAMPLES = 960  # ten of each caption, sixty of each class of shapes
KINDS = sorted({words.kind for words in WORDS})
"""Classes of shapes, in the order of their folders' names."""

GUIDANCE = {"texts": 2.0, "classes": 2.0, "flow": 2.0}
"""Of the forms that can be guided; the pipelines' own are for larger models."""

Shares = dict[str, float]


def looked_at(settings: Settings) -> int:
    """How many samples the verdict is on."""
    return min(SAMPLES, settings.evaluate.samples)


def samples(model: Teacher, condition: Condition, settings: Settings) -> npt.NDArray[np.uint8]:
    """Images, told the rows of the condition in turn."""
    how = settings.evaluate

    def shows(rows: npt.NDArray[np.int64]) -> Condition:
        return {name: each[torch.from_numpy(rows) % len(each)] for name, each in condition.items()}

    return model.sample(
        looked_at(settings),
        seed=settings.seed,
        sampler=how.sampler,
        steps=how.sampler_steps,
        batch_size=64,
        shows=shows if condition else None,
        nothing=model.nothing(),
        guidance=model.guidance(how.guidance),
    )


def of_captions(model: Teacher, on: Bench) -> Shares:
    """Shares of images that show what their captions say."""
    told = model.told([words.caption for words in WORDS])
    asked = [WORDS[index % len(WORDS)] for index in range(looked_at(on.settings))]
    return shares_right(asked, samples(model, told, on.settings))


def of_kinds(model: Teacher, on: Bench) -> Shares:
    """The share of images that show their class, a shape of some colour."""
    images = samples(model, {CLASSES: torch.arange(len(KINDS))}, on.settings)
    shown, distance = seen(images)
    right = [words.kind == KINDS[index % len(KINDS)] for index, words in enumerate(shown)]
    return {"kind": float(np.mean(right)), "distance": float(distance.mean())}


def of_nothing(model: Teacher, on: Bench) -> Shares:
    """How near images are to some drawing."""
    _, distance = seen(samples(model, {}, on.settings))
    return {"distance": float(distance.mean())}


def of_digits(model: Teacher, on: Bench) -> Shares:
    """The share of images that show their digit, to a machine that knows the seen ones."""
    data, labels = on.data, on.data.labels
    assert labels is not None

    def flat(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        return images.reshape(len(images), -1) / 16.0

    machine = SVC(gamma=0.001).fit(flat(data.images[data.seen]), labels[data.seen])
    images = samples(model, {CLASSES: torch.arange(10)}, on.settings)
    right = machine.predict(flat(images)) == np.arange(looked_at(on.settings)) % 10
    held_out = machine.score(flat(data.images[data.held_out]), labels[data.held_out])
    return {"kind": float(right.mean()), "kind of held-out images": float(held_out)}


VERDICTS: dict[str, Callable[[Teacher, Bench], Shares]] = {
    "digits": of_digits,
    "latent": of_nothing,
    "texts": of_captions,
    "classes": of_kinds,
    "flow": of_captions,
}


def coded(on: Bench) -> Shares:
    """The verdict on drawings that went through the autoencoder: no denoiser can do better."""
    rng = np.random.default_rng(0)
    asked = [WORDS[index % len(WORDS)] for index in range(looked_at(on.settings))]
    images = np.stack([drawn(words, rng) for words in asked]).transpose(0, 3, 1, 2)
    made = on.teacher.decode(on.teacher.encode(to_float(images)))
    return shares_right(asked, to_uint8(made))


def side(quality: dict[str, Any], shares: Shares) -> dict[str, Any]:
    """What the table shows of teacher or student."""
    return {key: value(quality[key]) for key in COLUMNS} | shares


def control(form: str, on: Bench, folder: Path, progress: Progress) -> Shares:
    """The teacher trained on for the student's steps, with what the run folder has encoded."""
    data = with_embeddings(on.teacher, on.data, folder / "data", progress)
    data = with_latents(on.teacher, data, folder / "data", progress)
    out = on.settings.data.condition_dropout or 0.0
    found = trained_row(
        replace(on, data=replace(data, condition_dropout=out)),
        lambda: copy.deepcopy(on.teacher.denoiser),
        folder / "control.json",
        made="teacher",
        changes=ALONE,
        progress=progress,
        also=lambda trained: {"shares": VERDICTS[form](trained, on)},
    )
    return side(found, found["shares"])


def main() -> None:
    parser = arguments(__doc__, "families", FORMS)
    parser.add_argument("--teachers", type=Path, required=True)
    parser.add_argument("--macs", default="0.5")
    parser.add_argument("--control", action="store_true", help="train the teacher on as well")
    args = parser.parse_args()
    form = args.form
    model = str(args.teachers / form / "teacher")
    data = "digits" if FORMS[form].data == "digits" else args.data
    guidance = [f"evaluate.guidance={GUIDANCE[form]}"] if form in GUIDANCE else []
    classes = ["data.label_column=class"] if form == "classes" else []
    settings = all_settings.load(None, (*guidance, *classes, *assignments(args)))
    with show_progress() as progress:
        run = compress(
            model,
            data=data,
            out=args.out / form,
            budget=parse_budget(macs=args.macs),
            settings=settings,
            progress=progress,
        )
        on = bench(model, data, settings)
        further = {"control": control(form, on, run.path, progress)} if args.control else {}
    student = run.students[run.name]
    metrics = student.metrics()
    small = load_teacher(str(student.path / "pipeline"))
    row = {
        "macs": metrics["student"]["macs"] / metrics["teacher"]["macs"],
        "params": metrics["student"]["params"] / metrics["teacher"]["params"],
        "latency": metrics["student"]["latency_ms"] / metrics["teacher"]["latency_ms"],
        "teacher": side(metrics["teacher"], VERDICTS[form](on.teacher, on)),
        "student": side(metrics["student"], VERDICTS[form](small, on)),
        **further,
        "settings": list(args.assignments),
        "protocol": metrics["protocol"],
        "seconds": metrics["seconds"],
    }
    if form != "digits":
        row["autoencoder"] = coded(on)
    shown = ("macs", "params", "teacher", "student", "control")
    print(json.dumps({key: row[key] for key in shown if key in row}, indent=1))
    file = args.results / f"{args.name}.json"
    known = json.loads(file.read_text()) if file.exists() else {}
    write_json(file, known | {form: row})


if __name__ == "__main__":
    main()
