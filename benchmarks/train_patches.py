r"""Train a second teacher, of colour images and of another form than the digits' one.

    python benchmarks/photo_patches.py --out runs/patches/images
    python benchmarks/train_patches.py --data runs/patches/images --steps 8000 \
        --out runs/patches/teacher

`small`: 16 by 16 pixels, three levels with one layer a block. `cifar`, for a GPU: as large as the
UNet of google/ddpm-cifar10-32, on patches of `photo_patches.py --side 32`. Both are trained to
predict the velocity (Salimans and Ho 2022, arXiv 2202.00512), so that what works with the digits
does not hang on their teacher. Whole strips of photographs are held out. The same command resumes.
`teacher_report.py` measures it; `par.py`, `compare.py` and the others take it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from diffusers import DDPMScheduler, UNet2DModel
from teacher_training import LEARNING_RATE, add_arguments, train
from untrained import cifar_unet

from diffnas.data import Data, load_data
from diffnas.device import resolve_device


def patches(folder: Path, side: int) -> Data:
    """Crops of seen and of held-out strips of photographs."""
    return load_data(str(folder), size=(side, side), channels=3, split_by="folder", augment="flip")


def small_unet() -> UNet2DModel:
    """0.69 M parameters, 24 M MACs."""
    return UNet2DModel(
        sample_size=16,
        in_channels=3,
        out_channels=3,
        layers_per_block=1,
        block_out_channels=(16, 32, 64),
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        attention_head_dim=8,
    )


FORMS = {"small": (small_unet, LEARNING_RATE), "cifar": (cifar_unet, 2e-4)}
"""How a teacher is made, and the peak of its learning rate."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--form", choices=FORMS, default="small")
    add_arguments(parser)
    args = parser.parse_args()
    new_model, peak = FORMS[args.form]
    scheduler = DDPMScheduler(num_train_timesteps=1000, prediction_type="v_prediction")
    device = resolve_device("auto")
    if device.type == "cpu":
        torch.set_num_threads(1)
    train(
        new_model,
        scheduler,
        patches(args.data, new_model().config.sample_size),
        steps=args.steps,
        out=args.out,
        seed=args.seed,
        device=device,
        peak=peak,
    )


if __name__ == "__main__":
    main()
