"""Train what ships with DiffNAS for the built-in digits: the features and the teacher.

    python benchmarks/train_digits.py features
    python benchmarks/train_digits.py teacher --steps 8000 --out runs/teacher-8000
    python benchmarks/train_digits.py teacher --steps 16000 --out runs/teacher-16000

The same command resumes a teacher's training. `teacher_report.py` measures the results.
One thread: models this small slow down with more.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from diffusers import DDPMScheduler, UNet2DModel
from safetensors.torch import save_file
from teacher_training import add_arguments, train
from torch import nn
from torch.nn import functional as F

from diffnas.data import batch, load_data, to_float
from diffnas.measure.features import DIGITS_WEIGHTS, digits_network


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
        images, rows, _ = batch(data, 128, generator)
        labels = torch.from_numpy(data.labels[rows])
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("features")
    add_arguments(commands.add_parser("teacher"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.command == "features":
        print(json.dumps(train_features()))
    else:
        data = load_data("digits", size=(8, 8), channels=1)
        scheduler = DDPMScheduler(num_train_timesteps=1000)
        train(new_teacher, scheduler, data, steps=args.steps, out=args.out, seed=args.seed)


if __name__ == "__main__":
    main()
