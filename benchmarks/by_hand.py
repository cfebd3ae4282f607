"""What students that people made by hand cost, beside their teachers: BK-SDM and SSD-1B.

    python benchmarks/by_hand.py

As stock configs of `UNet2DConditionModel`, counted on the meta device, no weights. BK-SDM (Kim et
al. 2023, arXiv 2305.15798): one layer a block of Stable Diffusion 1, two on the way up; Small
without a middle, Tiny without the innermost level too. SSD-1B (Gupta et al. 2024, arXiv
2401.02677): shallower transformers of SDXL, and a middle of one ResNet layer. Writes
benchmarks/results/by_hand.json and prints the table.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from plans import CONFIGS
from timing import RESULTS

from diffnas.checkpoint import write_json
from diffnas.families.loading import load_skeleton
from diffnas.measure.cost import call_cost

BASE: dict[str, Any] = {"layers_per_block": 1}
SMALL = {**BASE, "mid_block_type": None}
TINY = {
    **SMALL,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("CrossAttnDownBlock2D",) * 3,
    "up_block_types": ("CrossAttnUpBlock2D",) * 3,
}
SSD_1B = {
    "transformer_layers_per_block": [1, 2, 4],
    "reverse_transformer_layers_per_block": [[4, 4, 10], [2, 1, 1], 1],
    "mid_block_type": "UNetMidBlock2D",
}
STUDENTS: dict[str, dict[str, dict[str, Any]]] = {
    "stable-diffusion-1.5": {"BK-SDM-Base": BASE, "BK-SDM-Small": SMALL, "BK-SDM-Tiny": TINY},
    "stable-diffusion-xl": {"SSD-1B": SSD_1B},
}
"""By teacher: what differs in its config."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    rows = []
    for name, students in STUDENTS.items():
        teacher = load_skeleton(str(CONFIGS / name))
        kind: Any = type(teacher.denoiser)
        config: Any = teacher.denoiser.config
        own = {key: each for key, each in config.items() if key[0] != "_"}
        inputs = teacher.family.example_inputs(teacher.denoiser, 1, torch.device("meta"))
        whole = call_cost(teacher.denoiser, kwargs=inputs).macs
        for student, changes in students.items():
            with torch.device("meta"):
                model = kind(**{**own, **changes})
            cost = call_cost(model, kwargs=inputs)
            rows.append({"student": student, "params": cost.params, "macs": cost.macs / whole})
            print(f"{student}: {cost.params / 1e6:.0f} M, {cost.macs / whole:.3f} of the MACs")
    write_json(args.results / "by_hand.json", {"rows": rows})


if __name__ == "__main__":
    main()
