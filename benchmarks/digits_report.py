"""Measure the digits' teacher: how good, whether converged, whether it copies its data.

    python benchmarks/digits_report.py --half runs/teacher-8000 --full runs/teacher-16000

Writes benchmarks/results/train_digits.json, and the README beside the shipped teacher from it.
Distances are means over sampling seeds of unconditional samples, with the sampler that
`choose_sampler.py` settled on.
The seen part is also measured in stratified subsets of the held-out part's size: a Fréchet
distance is biased by the counts, so only distances of equal counts tell whether seen images are
nearer than held-out ones.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from choose_sampler import sample, schedulers
from diffusers import DDPMPipeline
from train_digits import BATCH, EMA, LEARNING_RATE

from diffnas.data import Data, load_data, to_float
from diffnas.data import augment as augmentation
from diffnas.measure.features import DIGITS_WEIGHTS
from diffnas.measure.quality import nearest_distance, quality

RESULTS = Path("benchmarks/results/train_digits.json")
SHIPPED = Path("src/diffnas/assets/digits")
SUBSETS = 8
ROWS = {  # what the README's table shows
    "held_out": "Fréchet distance to the held-out images",
    "held_out_deviation": "its deviation over sampling seeds",
    "seen_at_equal_count": "to as many seen images (mean of subsets)",
    "seen": "to all seen images",
    "held_out_kernel": "kernel distance to the held-out images",
    "nearest_distance": "mean pixel distance to the nearest seen image",
    "denoising_loss_held_out": "denoising loss, held-out images",
    "denoising_loss_seen": "denoising loss, seen images",
}


def equal_subsets(data: Data) -> list[np.ndarray]:
    """Subsets of the seen images with the held-out part's size and classes."""
    assert data.labels is not None
    rng, subsets = np.random.default_rng(0), []
    for _ in range(SUBSETS):
        chosen = []
        for label, count in enumerate(np.bincount(data.labels[data.held_out])):
            members = data.seen[data.labels[data.seen] == label]
            chosen.append(rng.choice(members, count, replace=False))
        subsets.append(np.concatenate(chosen))
    return subsets


def frechet(images: np.ndarray, reference: np.ndarray) -> float:
    return quality(images, reference, "digits")["frechet_distance"]


def real_rows(data: Data) -> dict[str, float]:
    """What real and augmented images give, in the same measures as a teacher's samples."""
    seen, held_out = data.images[data.seen], data.images[data.held_out]
    rest = [np.setdiff1d(data.seen, subset) for subset in equal_subsets(data)]
    changed = augmentation.digits(to_float(seen), torch.Generator().manual_seed(0))
    changed_bytes = ((changed + 1) * 127.5).round().to(torch.uint8).numpy()
    return {
        "seen_to_held_out": frechet(seen, held_out),
        "rest_of_seen_to_seen_subset": mean(
            frechet(data.images[others], data.images[subset])
            for others, subset in zip(rest, equal_subsets(data), strict=True)
        ),
        "augmented_seen_to_held_out": frechet(changed_bytes, held_out),
        "held_out_nearest_distance": nearest_distance(held_out, seen),
        "augmented_nearest_distance": nearest_distance(changed_bytes, seen),
    }


def denoising_loss(pipeline: DDPMPipeline, images: np.ndarray) -> float:
    """Mean squared error of the noise on fixed noise, timesteps spread over the schedule."""
    generator = torch.Generator().manual_seed(0)
    clean = to_float(images).repeat(4, 1, 1, 1)
    noise = torch.randn(clean.shape, generator=generator)
    times = torch.arange(len(clean)) * 1000 // len(clean)
    times = times[torch.randperm(len(clean), generator=generator)]
    with torch.no_grad():
        noisy = pipeline.scheduler.add_noise(clean, noise, times)
        return (pipeline.unet(noisy, times).sample - noise).square().mean().item()


def teacher_row(
    folder: Path, data: Data, *, sampler: str, sampling_steps: int, count: int, seeds: int
) -> dict[str, float]:
    pipeline = DDPMPipeline.from_pretrained(folder)
    pipeline.unet.eval()
    scheduler = schedulers(pipeline.scheduler.config)[sampler]
    seen, held_out = data.images[data.seen], data.images[data.held_out]
    rows = []
    for seed in range(seeds):
        images = sample(pipeline.unet, scheduler, sampling_steps, count, seed)
        to_held_out = quality(images, held_out, "digits")
        rows.append(
            {
                "held_out": to_held_out["frechet_distance"],
                "held_out_kernel": to_held_out["kernel_distance"],
                "seen": frechet(images, seen),
                "seen_at_equal_count": mean(
                    frechet(images, data.images[subset]) for subset in equal_subsets(data)
                ),
                "nearest_distance": nearest_distance(images, seen),
            }
        )
    spread = stdev(row["held_out"] for row in rows) if seeds > 1 else 0.0
    return {
        **{key: mean(row[key] for row in rows) for key in rows[0]},
        "held_out_deviation": spread,
        "denoising_loss_held_out": denoising_loss(pipeline, held_out),
        "denoising_loss_seen": denoising_loss(pipeline, seen),
    }


def readme(report: dict[str, dict[str, Any]]) -> str:
    """The shipped teacher's README, every measured number from the report."""
    half, full, real, about = (report[key] for key in ("half", "full", "real", "about"))
    table = "\n".join(f"| {v} | {half[k]:.4f} | {full[k]:.4f} |" for k, v in ROWS.items())
    return f"""# The digits' teacher

An unconditional `UNet2DModel` (1.0 M parameters, 23 M MACs) for scikit-learn's digits, 8 by 8 grey
pixels, in a `DDPMPipeline`. Trained by `benchmarks/train_digits.py` on the {about["seen"]} seen
images; `benchmarks/digits_report.py` measured it and wrote this page.

Training: {about["full_steps"]} steps of batch {BATCH}, AdamW {LEARNING_RATE:g} with warm-up and
cosine, EMA {EMA}, noise prediction, 1 000 linear steps. Augmentation, as standard deviations:
rotation {augmentation.ROTATION:g} degrees, scale {augmentation.SCALE:g}, shift
{augmentation.SHIFT:g} and elastic {augmentation.ELASTIC:g} of the side;
{augmentation.KEPT:.0%} of the images stay as they are.

Fréchet and kernel distances over 64 features of a classifier that is right on
{about["accuracy_held_out"]:.1%} of the held-out images; {about["count"]} samples by
{about["sampler"]}, {about["sampling_steps"]} steps, means of {about["seeds"]} sampling seeds:

| | {about["half_steps"]} steps | {about["full_steps"]} steps (shipped) |
|---|---|---|
{table}

Doubling the training steps changed the held-out distance by {full["change_by_doubling"]:+.1%}.

Real images in the same measures: seen to held-out {real["seen_to_held_out"]:.3f}, the other seen
images to {about["held_out"]} seen ones {real["rest_of_seen_to_seen_subset"]:.3f}, augmented seen
to held-out {real["augmented_seen_to_held_out"]:.3f}. Mean pixel distance to the nearest seen
image: held-out {real["held_out_nearest_distance"]:.4f}, augmented seen
{real["augmented_nearest_distance"]:.4f}.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--half", type=Path, required=True)
    parser.add_argument("--full", type=Path, required=True)
    parser.add_argument("--half-steps", type=int, default=8000)
    parser.add_argument("--full-steps", type=int, default=16000)
    parser.add_argument("--sampler", default="dpm++ 2m trailing")
    parser.add_argument("--sampling-steps", type=int, default=20)
    parser.add_argument("--count", type=int, default=4096)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = load_data("digits", size=(8, 8), channels=1)
    plan = {k: getattr(args, k) for k in ("sampler", "sampling_steps", "count", "seeds")}
    half, full = (teacher_row(folder, data, **plan) for folder in (args.half, args.full))
    full["change_by_doubling"] = full["held_out"] / half["held_out"] - 1
    accuracy = json.loads(DIGITS_WEIGHTS.with_suffix(".json").read_text())["accuracy_held_out"]
    about = {k: v for k, v in vars(args).items() if not isinstance(v, Path)}
    about |= {"seen": len(data.seen), "held_out": len(data.held_out)}
    about["accuracy_held_out"] = accuracy
    report = {"about": about, "half": half, "full": full, "real": real_rows(data)}
    print(json.dumps(report, indent=2))
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(report, indent=2) + "\n")
    (SHIPPED / "README.md").write_text(readme(report))


if __name__ == "__main__":
    main()
