"""The README.md of a student's pipeline folder."""

from collections.abc import Mapping
from typing import Any

from diffnas.report.table import count


def model_card(teacher: str, architecture: Mapping[str, Any]) -> str:
    """A model card in the Hub's form, from ``architecture.json``'s content."""
    cost, before = architecture["cost"], architecture["teacher"]
    rows = "\n".join(
        f"| {label} | {count(before[key])} | {count(cost[key])} | {cost[key] / before[key]:.2f} |"
        for key, label in (("params", "parameters"), ("macs", "MACs"))
    )
    return f"""---
library_name: diffusers
tags: [diffnas, diffusion]
---
A smaller `{teacher}`, found by block-wise architecture search and retrained with the dynamic joint
loss ([DiffNAS](https://arxiv.org/abs/2311.04950)).

| denoiser | teacher | student | ratio |
|---|---|---|---|
{rows}

Loads with diffusers alone: `DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)`
(its class file travels with it), or with `diffnas.load(folder)` without remote code.
"""
