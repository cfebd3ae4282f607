"""A made-up run folder, as much of it as wanted."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

BLOCKS = {"down_blocks.0": 48, "down_blocks.1": 96, "mid_block": 36, "up_blocks.0": 96}
OPTIONS = ["teacher", "width 0.5", "width 0.25", "skip"]
TEACHER = {"params": 1_200_000, "macs": 17_300_000, "macs_without_attention": 17_000_000}
STAGES = ("plan", "supernet", "scores", "student", "metrics")


def make_run(folder: Path, until: str = "metrics", name: str = "macs-0.5") -> Path:
    """Write a run that stopped after that stage of :data:`STAGES`."""
    folder.mkdir(parents=True, exist_ok=True)
    reached = STAGES[: STAGES.index(until) + 1]
    (folder / "settings.yaml").write_text("supernet:\n  steps: 300\nseed: 0\n")
    _write(folder / "plan.json", plan())
    log = []
    if "supernet" in reached:
        log += [supernet_record(step) for step in range(0, 300, 2)]
    if "scores" in reached:
        save_file(scores(), folder / "scores.safetensors")
    if "student" in reached:
        student = folder / "students" / name
        student.mkdir(parents=True)
        _write(student / "architecture.json", architecture(name))
        log += [retrain_record(step, name) for step in range(0, 600, 2)]
    if "metrics" in reached:
        _write(student / "metrics.json", metrics())
        samples().save(student / "samples.png")
    (folder / "log.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in log))
    return folder


def plan() -> dict[str, Any]:
    """plan.json."""
    half = {key: round(0.31 * value) for key, value in TEACHER.items()}
    slots = [
        {"path": path, "kind": kind, "options": OPTIONS}
        for path, kind in (("resnets.0", "resnet"), ("attentions.0", "attention"))
    ]
    blocks = [
        {"name": name, "share_macs": 0.25, "subnets": count, "slots": slots}
        for name, count in BLOCKS.items()
    ]
    return {
        "format": 1,
        "teacher": TEACHER,
        "largest": TEACHER,
        "smallest": half,
        "subnets": math.prod(BLOCKS.values()),
        "blocks": blocks,
        "left": ["up_blocks.1: no slot in it"],
        "reasons": {"supernet.steps": "300, as the demo asks for"},
    }


def supernet_record(step: int) -> dict[str, Any]:
    """A line of log.jsonl from supernet training."""
    noise = 1 + 0.2 * math.sin(step * 1.7)
    losses = {
        name: (0.02 + 0.6 * math.exp(-step / 60)) * noise * (1 + 0.4 * index)
        for index, name in enumerate(BLOCKS)
    }
    total = sum(losses.values())
    return {"time": 1.0, "stage": "supernet", "step": step, "loss": total, "blocks": losses}


def retrain_record(step: int, student: str) -> dict[str, Any]:
    """A line of log.jsonl from retraining."""
    beta, noise = step / 600, 1 + 0.15 * math.sin(step * 2.3)
    parts = {
        "blocks": (0.3 + 0.9 * math.exp(-step / 120)) * noise,
        "task": (0.05 + 0.04 * math.exp(-step / 90)) * noise,
        "output": (0.004 + 0.03 * math.exp(-step / 90)) * noise,
    }
    loss = (1 - beta) * parts["blocks"] + beta * parts["task"]
    return {
        "stage": "retrain",
        "student": student,
        "step": step,
        "loss": loss,
        "beta": beta,
        **parts,
    }


def scores() -> dict[str, Any]:
    """scores.safetensors; row 0 is the teacher's own subnet."""
    generator, tensors = np.random.default_rng(0), {}
    for name, count in BLOCKS.items():
        shares = np.concatenate([[1.0], np.sort(generator.uniform(0.1, 1, count - 1))[::-1]])
        losses = 0.01 * np.exp(3 * (1 - shares)) * generator.uniform(0.9, 1.6, count)
        losses[0] = 0.012
        tensors[f"{name}.losses"] = losses.astype(np.float32)
        tensors[f"{name}.macs"] = np.round(4e6 * shares).astype(np.int64)
        tensors[f"{name}.choices"] = np.zeros((count, 2), np.int16)
    return tensors


def architecture(name: str) -> dict[str, Any]:
    """architecture.json."""
    return {
        "format": 1,
        "name": name,
        "budget": {"macs": 0.5},
        "rule": "local",
        "tolerance": 1.84,
        "blocks": {
            block: {"resnets.0": OPTIONS[i % 4], "attentions.0": OPTIONS[(i + 1) % 4]}
            for i, block in enumerate(BLOCKS)
        },
        "options": {
            block: {path: OPTIONS for path in ("resnets.0", "attentions.0")} for block in BLOCKS
        },
        "edits": {},
        "cost": {key: value // 2 for key, value in TEACHER.items()},
        "teacher": TEACHER,
        "losses": {
            block: {
                "loss": 0.021 + 0.004 * i,
                "benchmark": 0.012,
                "macs": 2_000_000 - 350_000 * i,
                "teacher_macs": 4_000_000,
            }
            for i, block in enumerate(BLOCKS)
        },
    }


def metrics() -> dict[str, Any]:
    """metrics.json."""
    teacher = {
        **TEACHER,
        "memory_bytes": 9 * 2**20,
        "latency_ms": {"mean": 4.21, "std": 0.11},
        "frechet_distance": {"mean": 0.802, "std": 0.021},
        "kernel_distance": {"mean": 0.0031, "std": 0.0004},
        "frechet_distance_seen": {"mean": 0.771, "std": 0.019},
        "kernel_distance_seen": {"mean": 0.0029, "std": 0.0004},
        "denoising_loss": 0.0421,
        "nearest_seen": 1.31,
    }
    student = {
        **{key: value // 2 for key, value in TEACHER.items()},
        "memory_bytes": 5 * 2**20,
        "latency_ms": {"mean": 2.64, "std": 0.08},
        "frechet_distance": {"mean": 0.861, "std": 0.032},
        "kernel_distance": {"mean": 0.0036, "std": 0.0005},
        "frechet_distance_seen": {"mean": 0.848, "std": 0.03},
        "kernel_distance_seen": None,
        "denoising_loss": 0.0434,
        "nearest_seen": 1.29,
    }
    protocol = {
        "sampler": "dpmsolver",
        "steps": 20,
        "samples": 512,
        "seeds": [0],
        "features": "digits",
        "reference": "359 held-out images",
    }
    seconds = {"supernet": 92.1, "scores": 14.0, "retrain": 133.0, "evaluate": 61.0}
    return {"protocol": protocol, "teacher": teacher, "student": student, "seconds": seconds}


def samples() -> Image.Image:
    """Two rows of small pictures."""
    y, x = np.mgrid[0:80, 0:320]
    return Image.fromarray((127 + 120 * np.sin(x / 9) * np.cos(y / 11)).astype(np.uint8))


def _write(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values))
