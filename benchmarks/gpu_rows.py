"""What `gpu.py` measures of one model, a function per row."""

from __future__ import annotations

import argparse
import gc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from latency import build, shares, without_losses
from speed_step import draw, floor, shared
from timing import quartiles, seconds
from torch import nn

from diffnas.architecture import Architecture, Space
from diffnas.blocks import map_tensors
from diffnas.budget import parse_budget
from diffnas.data import Data, Embeddings
from diffnas.defaults import resolve_for
from diffnas.families import Teacher
from diffnas.families.conditions import CLASSES
from diffnas.families.loading import load_skeleton
from diffnas.forecast.memory import stage_bytes
from diffnas.measure.latency import latency_ms
from diffnas.measure.memory import memory_bytes
from diffnas.measure.meta import to_meta
from diffnas.optimizer import autocast
from diffnas.parallel import workers_for
from diffnas.retrain import Retraining
from diffnas.select import select
from diffnas.settings import Settings, SpaceSettings, parse
from diffnas.space import make_space
from diffnas.supernet import Supernet
from diffnas.supernet_training import BlockTraining
from diffnas.trunk_width import space_for

CONFIGS = Path(__file__).parent / "configs"
MODELS = {
    "sd15": "stable-diffusion-1.5",
    "sdxl": "stable-diffusion-xl",
    "dit": "dit-xl-2-256",
}
"""Folders of configs."""

BUDGET = parse_budget(macs=0.5)
IMAGES = 64  # to draw from: only their shape matters
DTYPE = torch.bfloat16

TINY_UNET = {
    **{"sample_size": 8, "layers_per_block": 1, "cross_attention_dim": 16},
    **{"norm_num_groups": 4, "attention_head_dim": 2},
}
TINY: dict[str, dict[str, Any]] = {
    "sd15": {**TINY_UNET, "block_out_channels": (8, 8, 16, 16)},
    "sdxl": {
        **TINY_UNET,
        "block_out_channels": (8, 8, 16),
        "transformer_layers_per_block": (1, 1, 2),
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 6 * 8 + 16,
    },
    "dit": {"sample_size": 8, "num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 8},
}
"""For `--quick`: what differs in the configs."""


def random_teacher(name: str, args: argparse.Namespace) -> Teacher:
    """A model of random weights on the device; without an autoencoder, as latents are at hand."""
    known = load_skeleton(str(CONFIGS / MODELS[name]))
    config: Any = known.denoiser.config
    torch.manual_seed(0)
    with torch.device(args.device):
        kind: Any = type(known.denoiser)
        denoiser = kind.from_config({**config, **(TINY[name] if args.quick else {})})
    denoiser = denoiser.to(args.device).eval().requires_grad_(False)
    parts = {"scheduler": known.pipeline.scheduler, known.family.component: denoiser}
    pipeline = SimpleNamespace(**parts)
    return Teacher(name, pipeline, denoiser, known.family)


def noise(teacher: Teacher) -> Data:
    """Latents of the teacher's shape and what they would show, of no meaning."""
    rows = np.arange(IMAGES)
    shape = (1, IMAGES, *teacher.family.sample_shape(teacher.denoiser))
    latents = np.random.default_rng(0).standard_normal(shape).astype(np.float16)
    told = teacher.family.example_condition(teacher.denoiser, IMAGES, torch.device("cpu"))
    arrays = {name: each.numpy() for name, each in told.items()}
    about: dict[str, Any] = {"labels": arrays.pop(CLASSES, None), "latents": latents}
    if arrays:
        nothing = {name: each[:1] for name, each in arrays.items()}
        embeddings = Embeddings(arrays, nothing, rows)
        about |= {"captions": ("",) * IMAGES, "embeddings": embeddings}
    return Data("noise", latents[0], seen=rows, held_out=rows, augment="none", **about)


def resolved(teacher: Teacher, args: argparse.Namespace) -> Settings:
    """The defaults of such a model, in bfloat16."""
    size = {"batch_size": args.batch_size}
    asked = parse({"precision": "bf16", "supernet": size, "retrain": size, "max_steps": 2})
    return resolve_for(teacher, asked)[0]


def chosen(space: Space) -> Architecture:
    """Of half the MACs, by a rule that looks at costs only."""
    return select(without_losses(space), BUDGET, "random", seed=0).architecture


def peak_bytes(device: str, work: Callable[[], object]) -> int | None:
    """Most that was allocated on the device while working; None where nobody counts."""
    if torch.device(device).type != "cuda":
        work()
        return None
    gc.collect()  # modules and their hooks hold each other
    torch.cuda.reset_peak_memory_stats(device)
    work()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device)


def step(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Supernet steps over their floor, as in `speed.py`; streams are as wide as the teacher's."""
    teacher = random_teacher(name, args)
    space = make_space(teacher.denoiser, teacher.family, SpaceSettings())
    supernet, data = Supernet(teacher, space), noise(teacher)
    size = resolved(teacher, args).supernet.batch_size
    assert size is not None
    times: dict[str, list[float]] = {"shared": [], "floor": []}
    with supernet.awake(supernet.blocks), autocast("bf16", teacher.device):
        for index in range(args.steps):
            drawn = draw(supernet, data, index, size, workers_for(args.device))
            run_floor, plain = floor(drawn)
            works = {"shared": shared(drawn), "floor": run_floor}
            for turn in range(args.rounds + 1):
                for kind in sorted(works, reverse=bool(turn % 2)):
                    took = seconds(works[kind])
                    for module in [*plain, *supernet.blocks.values()]:
                        module.zero_grad(set_to_none=True)
                    if turn:  # the first meets shapes not seen before
                        times[kind].append(took)
    ratios = [a / b for a, b in zip(times["shared"], times["floor"], strict=True)]
    milliseconds = {f"{kind}_ms": quartiles([1e3 * t for t in ts]) for kind, ts in times.items()}
    return {"batch_size": size, "over_floor": quartiles(ratios), **milliseconds}


def memory(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Peaks of both trainings, two steps of each, beside those that `diffnas plan` foretells.

    The student has half the MACs; foretold is the largest of those.
    """
    teacher = random_teacher(name, args)
    space = make_space(teacher.denoiser, teacher.family, SpaceSettings())
    settings, data = resolved(teacher, args), noise(teacher)
    given: dict[str, Any] = {"seed": 0, "precision": "bf16"}

    def supernet() -> None:
        net = Supernet(teacher, space)
        with net.awake(net.blocks):
            training = BlockTraining(net, data, settings.supernet, net.blocks, **given)
            for index in range(2):
                training.step(index)

    def retrain() -> None:
        student = build(teacher, chosen(space), space)
        training = Retraining(student, teacher, data, settings.retrain, **given)
        for index in range(2):
            training.step(index)

    foretold = stage_bytes(teacher, space, settings, teacher.device, BUDGET)
    peaks = {work.__name__: peak_bytes(args.device, work) for work in (supernet, retrain)}
    return {
        stage: {"bytes": peak, "foretold": foretold[stage], "batch_size": batch_size}
        for (stage, peak), batch_size in zip(
            peaks.items(), (settings.supernet.batch_size, settings.retrain.batch_size), strict=True
        )
    }


def students(teacher: Teacher) -> dict[str, tuple[Space, Architecture]]:
    """Of half the MACs: with the teacher's streams, and with those that such a budget gets."""
    meta, family = to_meta(teacher.denoiser), teacher.family
    spaces = {"streams as they are": make_space(meta, family, SpaceSettings())}
    narrower = space_for(Settings(), meta, family, BUDGET)[1]
    if narrower.trunk is not None:
        spaces["narrower streams"] = narrower
    return {kind: (space, chosen(space)) for kind, space in spaces.items()}


def latency(name: str, args: argparse.Namespace, *, compiled: bool) -> dict[str, Any]:
    """Latency of the teacher and of students of half its MACs, in turns; UNets channels last."""
    teacher = random_teacher(name, args)
    found = students(teacher)
    models = {kind: build(teacher, made, space) for kind, (space, made) in found.items()}
    models = {"teacher": teacher.denoiser, **models}
    unet = teacher.family.component == "unet"
    how: dict[str, Any] = {"memory_format": torch.channels_last} if unet else {}
    for model in models.values():
        nn.Module.to(model, dtype=DTYPE, **how)  # past diffusers' own, which warns of every call
    torch.compiler.reset()
    runs = {
        kind: torch.compile(model, backend=args.backend, dynamic=False) if compiled else model
        for kind, model in models.items()
    }
    rows: dict[str, Any] = {kind: shares(space, made) for kind, (space, made) in found.items()}
    rows["teacher"] = {"macs": 1.0, "params": 1.0}
    for batch in args.batches:
        example = teacher.family.example_inputs(teacher.denoiser, batch, teacher.device)
        inputs = map_tensors(lambda x: x.to(DTYPE) if x.is_floating_point() else x, example)
        calls = {kind: partial(run, **inputs) for kind, run in runs.items()}
        times: dict[str, list[float]] = {kind: [] for kind in calls}
        for turn in range(args.rounds):
            warmup = 0 if turn else 3
            taken = latency_ms(calls, device=args.device, repeats=args.repeats, warmup=warmup)
            for kind, ms in taken.items():
                times[kind].append(ms)
        resident = sum(map(weights, models.values()))
        for kind, row in rows.items():
            ratios = [a / b for a, b in zip(times["teacher"], times[kind], strict=True)]
            with torch.no_grad():
                peak = peak_bytes(args.device, calls[kind])
            row[f"batch {batch}"] = {
                "ms": quartiles(times[kind]),
                "speedup": quartiles(ratios),
                "of the ideal": quartiles([ratio * row["macs"] for ratio in ratios]),
                "bytes": None if peak is None else peak - resident + weights(models[kind]),
                "foretold": memory_bytes(models[kind], inputs),
            }
    return rows


def weights(model: nn.Module) -> int:
    """Bytes of parameters and buffers."""
    tensors = [*model.parameters(), *model.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


ROWS: dict[str, Callable[[str, argparse.Namespace], dict[str, Any]]] = {
    "step": step,
    "memory": memory,
    "eager": partial(latency, compiled=False),
    "compiled": partial(latency, compiled=True),
}
