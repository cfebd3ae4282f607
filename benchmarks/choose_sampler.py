"""How many steps of which sampler bring the teacher near its many-step quality, at what cost.

    python benchmarks/choose_sampler.py --teacher src/diffnas/assets/digits

Every row uses the same starting noise, and all samplers are deterministic, so differences
between rows are much surer than each value is; the distance is to held-out digits. The many-step value
is DDIM's with 200 steps. A sampler's own error must be small beside the differences
between students, so the cheapest row close to that value is the one to evaluate with.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, DDPMPipeline, DPMSolverMultistepScheduler, SchedulerMixin
from torch import nn

from diffnas.data import load_data
from diffnas.measure.quality import quality

MANY = 200  # steps of the reference row
BATCH = 256


def schedulers(config: dict[str, Any]) -> dict[str, SchedulerMixin]:
    """Samplers by name, all from the teacher's own scheduler configuration."""
    ddim = DDIMScheduler.from_config(config, timestep_spacing="trailing")
    dpm = {
        spacing: DPMSolverMultistepScheduler.from_config(
            config, algorithm_type="dpmsolver++", solver_order=2, timestep_spacing=spacing
        )
        for spacing in ("trailing", "linspace")
    }
    return {"ddim trailing": ddim, **{f"dpm++ 2m {k}": v for k, v in dpm.items()}}


def sample(
    model: nn.Module, scheduler: SchedulerMixin, steps: int, count: int, seed: int = 0
) -> np.ndarray:
    """Images as uint8 (count, 1, 8, 8); noise and image i depend on the seed and i's batch only."""
    images = []
    with torch.no_grad():
        for start in range(0, count, BATCH):
            generator = torch.Generator().manual_seed(seed * 10**6 + start)
            x = torch.randn(min(BATCH, count - start), 1, 8, 8, generator=generator)
            scheduler.set_timesteps(steps)
            x = x * scheduler.init_noise_sigma
            for t in scheduler.timesteps:
                out = model(scheduler.scale_model_input(x, t), t).sample
                x = scheduler.step(out, t, x).prev_sample
            images.append(((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8))
    return torch.cat(images).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--teacher", type=Path, default="src/diffnas/assets/digits")
    parser.add_argument("--count", type=int, default=2048)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, default="benchmarks/results/choose_sampler.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    pipeline = DDPMPipeline.from_pretrained(args.teacher)
    model = pipeline.unet.eval()
    data = load_data("digits", size=(8, 8), channels=1)
    held_out = data.images[data.held_out]
    samplers = schedulers(pipeline.scheduler.config)
    plan = [("ddim trailing", n) for n in (MANY, 100, 60, 40, 20)]
    plan += [("dpm++ 2m trailing", n) for n in (30, 20, 15, 10)] + [("dpm++ 2m linspace", 20)]
    rows = []
    for name, steps in plan:
        began = time.perf_counter()
        values = []
        for seed in range(args.seeds):
            images = sample(model, samplers[name], steps, args.count, seed)
            values.append(quality(images, held_out, "digits"))
        mean = {k: sum(v[k] for v in values) / len(values) for k in values[0]}
        each = [v["frechet_distance"] for v in values]
        seconds = (time.perf_counter() - began) / args.seeds
        rows.append({"sampler": name, "steps": steps, **mean, "seeds": each, "seconds": seconds})
        print(json.dumps(rows[-1]), flush=True)
    report = {"count": args.count, "reference": "held-out digits", "rows": rows}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
