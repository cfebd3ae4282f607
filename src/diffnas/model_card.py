"""The README.md of a student's pipeline folder."""

from collections.abc import Mapping
from typing import Any

from diffnas.figures import count


def model_card(architecture: Mapping[str, Any], *, own_class: bool) -> str:
    """A model card in the Hub's form, from ``architecture.json``'s content.

    ``own_class``: whether the student's class is no stock one of diffusers and travels with it.
    """
    cost, before = architecture["cost"], architecture["teacher"]
    source = before["source"]
    # Of a folder only its last part is known; only the Hub's ids have two.
    base = f"\nbase_model: {source}" if "/" in source else ""
    rows = "\n".join(
        f"| {label} | {count(before[key])} | {count(cost[key])} | {cost[key] / before[key]:.2f} |"
        for key, label in (("params", "parameters"), ("macs", "MACs"))
    )
    loads = (
        "diffusers 0.38 or newer alone:\n"
        "`DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)` (its class file\n"
        "travels with it), or with `diffnas.load(folder)` without remote code."
        if own_class
        else "diffusers alone: `DiffusionPipeline.from_pretrained(folder)`."
    )
    return f"""---
library_name: diffusers{base}
tags: [diffnas, diffusion]
---
A smaller `{source}`, found by block-wise architecture search and retrained with the dynamic joint
loss ([DiffNAS](https://arxiv.org/abs/2311.04950)).

| denoiser | teacher | student | ratio |
|---|---|---|---|
{rows}

Loads with {loads}
"""
