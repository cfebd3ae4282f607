"""Train what ships with DiffNAS for the built-in digits: the features and the teacher.

    python benchmarks/train_digits.py features
    python benchmarks/train_digits.py teacher --steps 8000 --out runs/teacher-8000
    python benchmarks/train_digits.py teacher --steps 16000 --out runs/teacher-16000

A teacher run saves every few hundred steps and resumes where it stopped; each step's randomness
is a function of (seed, step), so a resumed run is the uninterrupted one. `report_digits.py`
measures the results. One thread: models this small slow down with more.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from diffnas.data import batch, load_data, to_float
from diffnas.measure.features import DIGITS_WEIGHTS, digits_network

BATCH = 64
LEARNING_RATE = 1e-3
WARMUP = 500
EMA = 0.999
SAVE_EVERY = 500


def train_features(steps: int = 3000, out: Path = DIGITS_WEIGHTS) -> dict[str, float]:
    """Classify augmented seen digits; save the body, scaled to unit mean feature variance."""
    data = load_data("digits", size=(8, 8), channels=1)
    assert data.labels is not None
    torch.manual_seed(0)
    body = digits_network()
    head = nn.Sequential(nn.SiLU(), nn.Dropout(0.2), nn.Linear(64, 10))
    parameters = [*body.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        images, labels = batch(data, 128, generator)
        assert labels is not None
        F.cross_entropy(head(body(images)), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    head.eval()
    accuracy = {}
    with torch.no_grad():
        for name, part in (("seen", data.seen), ("held_out", data.held_out)):
            guess = head(body(to_float(data.images[part]))).argmax(dim=1)
            right = guess == torch.from_numpy(data.labels[part])
            accuracy[f"accuracy_{name}"] = right.double().mean().item()
        deviation = body(to_float(data.images[data.seen])).var(dim=0).mean().sqrt()
        body[-1].weight /= deviation
        body[-1].bias /= deviation
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file(body.state_dict(), out)
    about = {"num_features": 64, "input": [1, 8, 8], "steps": steps, **accuracy}
    out.with_suffix(".json").write_text(json.dumps(about, indent=2) + "\n")
    return accuracy


def new_teacher() -> UNet2DModel:
    """1.0 M parameters, 23 M MACs."""
    return UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=2,
        block_out_channels=(32, 64),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        attention_head_dim=8,
    )


def learning_rate(step: int, steps: int) -> float:
    """Linear warm-up, then a cosine to zero at `steps`."""
    if step < WARMUP:
        return LEARNING_RATE * (step + 1) / WARMUP
    return LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * (step - WARMUP) / (steps - WARMUP)))


def train_teacher(steps: int, out: Path, seed: int = 0) -> None:
    """Train for `steps` in total, resuming from `out`; a pipeline with EMA weights stays there."""
    data = load_data("digits", size=(8, 8), channels=1)
    scheduler = DDPMScheduler(num_train_timesteps=1000)
    torch.manual_seed(seed)
    model = new_teacher()
    average = new_teacher().requires_grad_(False)
    average.load_state_dict(model.state_dict())
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    start = restore(out, model, average, optimizer)
    generator = torch.Generator()
    total, began = 0.0, time.perf_counter()
    for step in range(start, steps):
        generator.manual_seed(seed * 10**9 + step)
        clean, _ = batch(data, BATCH, generator)
        noise = torch.randn(clean.shape, generator=generator)
        times = torch.randint(1000, (BATCH,), generator=generator)
        noisy = scheduler.add_noise(clean, noise, times)
        loss = F.mse_loss(model(noisy, times).sample, noise)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps)
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("features")
    teacher = commands.add_parser("teacher")
    teacher.add_argument("--steps", type=int, required=True)
    teacher.add_argument("--out", type=Path, required=True)
    teacher.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.command == "features":
        print(json.dumps(train_features()))
    else:
        train_teacher(args.steps, args.out, args.seed)


if __name__ == "__main__":
    main()
