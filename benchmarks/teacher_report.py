"""Measure a teacher: how good, whether converged, whether it copies its data.

    python benchmarks/teacher_report.py digits --half runs/teacher-8000 --full runs/teacher-16000
    python benchmarks/teacher_report.py runs/patches/images --full runs/patches/teacher

Writes benchmarks/results/{digits,patches}_teacher.json. `--half`: the same training with half the
steps; without it nothing is said on convergence. Distances are means over sampling seeds, with
the sampler that `choose_sampler.py` settled on.

A Fréchet distance is biased by the counts, so seen images are also measured in subsets of the
held-out part's size: only distances of equal counts tell whether seen images are nearer. What real
images give in the same measures is beside it; where whole photographs are held out, seen images
are far from held-out ones for their content alone, and no teacher can be expected to be nearer.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from choose_sampler import sample
from diffusers import DDPMPipeline
from teacher_training import target
from train_patches import patches

from diffnas.checkpoint import write_json
from diffnas.data import Data, load_data, to_float
from diffnas.data.augment import AUGMENTATIONS
from diffnas.measure.quality import nearest_distance, quality

RESULTS = Path("benchmarks/results")
SUBSETS = 8
CONVERGED = 0.05  # relative change of the held-out distance when the training steps double
TIMESTEPS = 1000


def equal_subsets(data: Data) -> list[np.ndarray]:
    """Subsets of the seen images of the held-out part's size and, where known, classes."""
    labels = np.zeros(len(data.images), int) if data.labels is None else data.labels
    rng, subsets = np.random.default_rng(0), []
    for _ in range(SUBSETS):
        chosen = []
        for label, count in enumerate(np.bincount(labels[data.held_out])):
            members = data.seen[labels[data.seen] == label]
            chosen.append(rng.choice(members, count, replace=False))
        subsets.append(np.concatenate(chosen))
    return subsets


def real_rows(data: Data, features: str) -> dict[str, float]:
    """What real and augmented images give, in the same measures as a teacher's samples."""
    images, held_out = data.images, data.images[data.held_out]

    def frechet(some: np.ndarray, reference: np.ndarray) -> float:
        return quality(some, reference, features)["frechet_distance"]

    seen = images[data.seen]
    changed = AUGMENTATIONS[data.augment](to_float(seen), torch.Generator().manual_seed(0))
    augmented = ((changed + 1) * 127.5).round().to(torch.uint8).numpy()
    subsets = equal_subsets(data)
    others = [np.setdiff1d(data.seen, subset) for subset in subsets]
    return {
        "seen_to_held_out": frechet(seen, held_out),
        "seen_to_held_out_equal_count": mean(frechet(images[s], held_out) for s in subsets),
        "augmented_seen_to_held_out": frechet(augmented, held_out),
        "other_seen_to_seen_equal_count": mean(
            frechet(images[o], images[s]) for o, s in zip(others, subsets, strict=True)
        ),
        "held_out_nearest_distance": nearest_distance(held_out, seen),
        "augmented_nearest_distance": nearest_distance(augmented, seen),
    }


def denoising_loss(pipeline: DDPMPipeline, images: np.ndarray) -> float:
    """Training loss on one fixed batch: fixed noise, timesteps spread over the schedule."""
    generator = torch.Generator().manual_seed(0)
    clean = to_float(images[np.arange(4 * 359) % len(images)])
    noise = torch.randn(clean.shape, generator=generator)
    times = torch.arange(len(clean)) * TIMESTEPS // len(clean)
    times = times[torch.randperm(len(clean), generator=generator)]
    with torch.no_grad():
        noisy = pipeline.scheduler.add_noise(clean, noise, times)
        wanted = target(pipeline.scheduler, clean, noise, times)
        return (pipeline.unet(noisy, times).sample - wanted).square().mean().item()


def teacher_rows(
    folder: Path,
    data: Data,
    features: str,
    *,
    sampler: str,
    sampling_steps: int,
    count: int,
    seeds: int,
) -> dict[str, float]:
    """Means over sampling seeds, and the held-out distance's deviation."""
    pipeline = DDPMPipeline.from_pretrained(folder)
    pipeline.unet.eval()
    seen, held_out = data.images[data.seen], data.images[data.held_out]
    rows = []
    for seed in range(seeds):
        images = sample(pipeline, sampler, sampling_steps, count, seed)
        to_seen = quality(images, seen, features)
        to_subsets = [quality(images, data.images[s], features) for s in equal_subsets(data)]
        rows.append(
            {
                **quality(images, held_out, features),
                "frechet_distance_seen": to_seen["frechet_distance"],
                "kernel_distance_seen": to_seen["kernel_distance"],
                "frechet_distance_seen_equal_count": mean(
                    each["frechet_distance"] for each in to_subsets
                ),
                "nearest_distance": nearest_distance(images, seen),
            }
        )
    spread = stdev(row["frechet_distance"] for row in rows) if seeds > 1 else 0.0
    return {
        **{key: mean(row[key] for row in rows) for key in rows[0]},
        "frechet_distance_deviation": spread,
        "denoising_loss_held_out": denoising_loss(pipeline, held_out),
        "denoising_loss_seen": denoising_loss(pipeline, seen),
    }


def convergence(half: dict[str, float], full: dict[str, float]) -> dict[str, Any]:
    """Relative changes by doubling the training steps, and the verdict."""
    change = {
        f"{key}_change": full[key] / half[key] - 1
        for key in ("frechet_distance", "frechet_distance_seen", "denoising_loss_held_out")
    }
    return {**change, "converged": abs(change["frechet_distance_change"]) < CONVERGED}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="'digits', or the folder that photo_patches.py made")
    parser.add_argument("--full", type=Path, required=True)
    parser.add_argument("--half", type=Path)
    parser.add_argument("--sampler", default="dpmsolver")
    parser.add_argument("--sampling-steps", type=int, default=20)
    parser.add_argument("--count", type=int, default=2048)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    name = "digits" if args.data == "digits" else "patches"
    if name == "digits":
        data = load_data("digits", size=(8, 8), channels=1)
    else:
        side = json.loads((args.full / "unet" / "config.json").read_text())["sample_size"]
        data = patches(Path(args.data), side)
    plan = {k: getattr(args, k) for k in ("sampler", "sampling_steps", "count", "seeds")}
    about = {**plan, "features": name, "seen": len(data.seen), "held_out": len(data.held_out)}
    report: dict[str, Any] = {"about": about, "real": real_rows(data, name)}
    for part in ("half", "full"):
        if getattr(args, part) is not None:
            report[part] = teacher_rows(getattr(args, part), data, name, **plan)
    if args.half is not None:
        report["convergence"] = convergence(report["half"], report["full"])
    print(json.dumps(report, indent=2))
    write_json(args.results / f"{name}_teacher.json", report)


if __name__ == "__main__":
    main()
