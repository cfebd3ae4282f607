"""The loop that trains the teachers of the benchmarks, resumable to the bit.

A run saves every few hundred steps and resumes where it stopped; each step's randomness is a
function of (seed, step), so a resumed run is the uninterrupted one.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from diffnas.data import Data, batch

BATCH = 64
LEARNING_RATE = 1e-3
WARMUP = 500
EMA = 0.999
SAVE_EVERY = 500
CPU = torch.device("cpu")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What every run of a teacher's training is told."""
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Linear warm-up, then a cosine to zero at `steps`."""
    if step < WARMUP:
        return peak * (step + 1) / WARMUP
    return peak * 0.5 * (1 + math.cos(math.pi * (step - WARMUP) / (steps - WARMUP)))


def target(scheduler: DDPMScheduler, clean: Tensor, noise: Tensor, times: Tensor) -> Tensor:
    """What the model is to predict: the noise, or the velocity."""
    if scheduler.config.prediction_type == "v_prediction":
        return scheduler.get_velocity(clean, noise, times)
    return noise


def train(
    new_model: Callable[[], UNet2DModel],
    scheduler: DDPMScheduler,
    data: Data,
    *,
    steps: int,
    out: Path,
    seed: int = 0,
    device: torch.device = CPU,
    peak: float = LEARNING_RATE,
) -> None:
    """Train for `steps` in total, resuming from `out`; a pipeline with EMA weights stays there."""
    torch.manual_seed(seed)
    model = new_model().to(device)
    average = new_model().requires_grad_(False).to(device)
    average.load_state_dict(model.state_dict())
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak)
    start = restore(out, model, average, optimizer)
    generator = torch.Generator()
    total, began = 0.0, time.perf_counter()
    for step in range(start, steps):
        generator.manual_seed(seed * 10**9 + step)
        clean, *_ = batch(data, BATCH, generator)
        noise = torch.randn(clean.shape, generator=generator)
        times = torch.randint(1000, (BATCH,), generator=generator)
        clean, noise, times = (each.to(device) for each in (clean, noise, times))
        noisy = scheduler.add_noise(clean, noise, times)
        wanted = target(scheduler, clean, noise, times)
        loss = F.mse_loss(model(noisy, times).sample, wanted)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, peak)
        optimizer.step()
        optimizer.zero_grad()
        decay = min(EMA, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
        total += loss.item()
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == steps:
            save(out, step + 1, model, average, optimizer)
            DDPMPipeline(average, scheduler).save_pretrained(out)
            seconds = (time.perf_counter() - began) / (step + 1 - start)
            mean = total / ((step % SAVE_EVERY) + 1)
            print(f"{step + 1} of {steps}: loss {mean:.4f}, {seconds:.3f} s a step", flush=True)
            total = 0.0


def save(
    out: Path, step: int, model: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Everything that resuming needs, in one file put in place at once."""
    state: dict[str, Tensor] = {"step": torch.tensor(step)}
    state |= {f"model.{k}": v for k, v in model.state_dict().items()}
    state |= {f"average.{k}": v for k, v in average.state_dict().items()}
    for index, moments in optimizer.state_dict()["state"].items():
        state |= {f"optimizer.{index}.{k}": v for k, v in moments.items()}
    out.mkdir(parents=True, exist_ok=True)
    save_file(state, out / "state.tmp")
    (out / "state.tmp").replace(out / "state.safetensors")


def restore(
    out: Path, model: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer
) -> int:
    """Load what `save` wrote, if anything; the step to go on from."""
    if not (out / "state.safetensors").exists():
        return 0
    state = load_file(out / "state.safetensors")

    def part(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}

    model.load_state_dict(part("model."))
    average.load_state_dict(part("average."))
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in part("optimizer.").items():
        index, name = key.split(".")
        moments.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    return int(state["step"])
