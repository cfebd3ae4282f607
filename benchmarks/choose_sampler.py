"""How many steps of which sampler bring the teacher near its many-step quality.

    python benchmarks/choose_sampler.py --teacher src/diffnas/assets/digits

Every row starts from the same noise, and all samplers are deterministic, but some noise leads to
another image when DDIM takes more steps: differences of a few hundredths between samplers mean
little. A row's cost is its steps, one call of the denoiser each; the distance is to held-out
digits. A sampler's own error must be small beside the differences between students, so the
cheapest row at which a sampler's value has settled is the one to evaluate with. Writes
benchmarks/results/choose_sampler.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from diffusers import DDPMPipeline
from timing import RESULTS

from diffnas.checkpoint import write_json
from diffnas.data import load_data
from diffnas.families.sampling import sample_images
from diffnas.measure.quality import quality

BATCH = 256
ROWS = (  # dearest first
    ("ddim", 200),
    ("ddim", 100),
    ("ddim", 50),
    ("ddim", 20),
    ("dpmsolver", 30),
    ("dpmsolver", 20),
    ("dpmsolver", 15),
    ("dpmsolver", 10),
)


def sample(pipeline: DDPMPipeline, sampler: str, steps: int, count: int, seed: int) -> np.ndarray:
    """Images as uint8 (count, C, H, W), made as `diffnas evaluate` makes them."""
    model = pipeline.unet.eval()
    side = model.config.sample_size
    return sample_images(
        pipeline.scheduler,
        lambda _: lambda noisy, timestep: model(noisy, timestep).sample,
        (model.config.in_channels, side, side),
        count,
        seed=seed,
        sampler=sampler,
        steps=steps,
        batch_size=BATCH,
        device=torch.device("cpu"),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--teacher", type=Path, default="src/diffnas/assets/digits")
    parser.add_argument("--count", type=int, default=2048)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--rows", type=int, default=len(ROWS), help="so many, the cheapest")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    pipeline = DDPMPipeline.from_pretrained(args.teacher)
    data = load_data("digits", size=(8, 8), channels=1)
    held_out = data.images[data.held_out]
    rows = []
    for sampler, steps in ROWS[-args.rows :]:
        values = []
        for seed in range(args.seeds):
            images = sample(pipeline, sampler, steps, args.count, seed)
            values.append(quality(images, held_out, "digits"))
        means = {key: mean(value[key] for value in values) for key in values[0]}
        rows.append({"sampler": sampler, "steps": steps, **means})
        print(json.dumps(rows[-1]), flush=True)
    report = {
        "teacher": args.teacher.name,
        "count": args.count,
        "seeds": args.seeds,
        "reference": "held-out digits",
        "rows": rows,
    }
    write_json(args.results / "choose_sampler.json", report)


if __name__ == "__main__":
    main()
