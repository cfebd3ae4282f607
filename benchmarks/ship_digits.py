"""Put the digits' teacher into the package, with a README made of its measured numbers.

    python benchmarks/ship_digits.py --teacher runs/teacher-8000

Run `teacher_report.py digits` first.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from diffusers import DDPMPipeline
from teacher_report import CONVERGED, RESULTS
from teacher_training import BATCH, EMA, LEARNING_RATE

from diffnas.data import augment
from diffnas.measure.features import DIGITS_WEIGHTS

SHIPPED = Path("src/diffnas/assets/digits")
ROWS = {
    "frechet_distance": "Fréchet distance to the held-out images",
    "frechet_distance_deviation": "its deviation over sampling seeds",
    "frechet_distance_seen_equal_count": "to as many seen images (mean of subsets)",
    "frechet_distance_seen": "to all seen images",
    "kernel_distance": "kernel distance to the held-out images",
    "kernel_distance_seen": "to all seen images",
    "nearest_distance": "mean pixel distance to the nearest seen image",
    "denoising_loss_held_out": "denoising loss, held-out images",
    "denoising_loss_seen": "denoising loss, seen images",
}


def converged(change: dict[str, Any]) -> str:
    """What doubling the training steps says."""
    distance = f"{change['frechet_distance_change']:+.1%}"
    loss = f"{change['denoising_loss_held_out_change']:+.1%}"
    verdict = "converged" if change["converged"] else "**not** converged"
    return f"""Doubling the training steps changed the held-out Fréchet distance by {distance}
and the held-out denoising loss by {loss}. Where less than {CONVERGED:.0%} of that distance counts
as convergence, the teacher is {verdict}. The longer training came nearer to seen images than to
held-out ones, so the shorter one is shipped."""


def memorised(teacher: dict[str, float], real: dict[str, float]) -> str:
    """How near samples and seen images are, beside what real images give."""
    held_out = f"{real['held_out_nearest_distance']:.4f}"
    augmented = f"{real['augmented_nearest_distance']:.4f}"
    sampled = f"{teacher['nearest_distance']:.4f}"
    to_seen = f"{teacher['frechet_distance_seen_equal_count']:.3f}"
    gap = f"{teacher['denoising_loss_held_out'] / teacher['denoising_loss_seen'] - 1:+.1%}"
    return f"""Does it copy? To the nearest seen image, held-out images have {held_out} on average,
samples {sampled}, augmented seen images {augmented}. Samples are at {to_seen} from seen images, at
{teacher["frechet_distance"]:.3f} from as many held-out ones. Loss on held-out images, relative to
that on seen ones: {gap}. A teacher that copied nothing would show no differences between seen and
held-out images, and its samples would lie as far from seen images as held-out ones do."""


def readme(report: dict[str, Any], accuracy: float) -> str:
    """The page, every measured number from the report."""
    half, full, real, about = (report[key] for key in ("half", "full", "real", "about"))
    table = "\n".join(f"| {v} | {half[k]:.4f} | {full[k]:.4f} |" for k, v in ROWS.items())
    return f"""# The digits' teacher

An unconditional `UNet2DModel` (1.0 M parameters, 23 M MACs) for scikit-learn's digits, 8 by 8 grey
pixels, in a `DDPMPipeline`.

    python benchmarks/train_digits.py teacher --steps 8000 --out runs/teacher-8000

trained it on {about["seen"]} seen images; {about["held_out"]} were held out. Batch {BATCH}, AdamW
{LEARNING_RATE:g} with warm-up and cosine, noise prediction over 1 000 linear steps; these are the
averaged weights (EMA {EMA}). Augmentation, as standard deviations: rotation {augment.ROTATION:g}
degrees, scale {augment.SCALE:g}, shift {augment.SHIFT:g} and elastic {augment.ELASTIC:g} of the
side; {augment.KEPT:.0%} of the images stay as they are.

`benchmarks/teacher_report.py` measured it: {about["count"]} samples by {about["sampler"]} in
{about["sampling_steps"]} steps, means of {about["seeds"]} sampling seeds, over 64 features of a
classifier that is right on {accuracy:.1%} of the held-out images.

| | 8000 steps (shipped) | 16000 steps |
|---|---|---|
{table}

Real images in the same measure: seen to held-out {real["seen_to_held_out"]:.3f}, as few seen as
held-out {real["seen_to_held_out_equal_count"]:.3f}, augmented seen to held-out
{real["augmented_seen_to_held_out"]:.3f}.

{converged(report["convergence"])}

{memorised(half, real)}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--teacher", type=Path, required=True)
    args = parser.parse_args()
    report = json.loads((RESULTS / "digits_teacher.json").read_text())
    accuracy = json.loads(DIGITS_WEIGHTS.with_suffix(".json").read_text())["accuracy_held_out"]
    DDPMPipeline.from_pretrained(args.teacher).save_pretrained(SHIPPED)
    for file in SHIPPED.rglob("*.json"):  # diffusers notes where a model was loaded from
        content = json.loads(file.read_text())
        content.pop("_name_or_path", None)
        file.write_text(json.dumps(content, indent=2) + "\n")
    (SHIPPED / "README.md").write_text(readme(report, accuracy))


if __name__ == "__main__":
    main()
