r"""Train a second teacher, of colour images and of another form than the digits' one.

    python benchmarks/photo_patches.py --out runs/patches/images
    python benchmarks/train_patches.py --data runs/patches/images --steps 8000 \
        --out runs/patches/teacher

16 by 16 pixels, three levels with one layer a block, trained to predict the velocity (Salimans and
Ho 2022, arXiv 2202.00512), so that what works with both teachers does not hang on one. Whole
strips of photographs are held out. The same command resumes. `teacher_report.py` measures it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from diffusers import DDPMScheduler, UNet2DModel
from photo_patches import SIDE
from teacher_training import add_arguments, train

from diffnas.data import Data, load_data


def patches(folder: Path) -> Data:
    """Crops of seen and of held-out strips of photographs."""
    return load_data(str(folder), size=(SIDE, SIDE), channels=3, split_by="folder", augment="flip")


def new_teacher() -> UNet2DModel:
    """0.69 M parameters, 24 M MACs."""
    return UNet2DModel(
        sample_size=SIDE,
        in_channels=3,
        out_channels=3,
        layers_per_block=1,
        block_out_channels=(16, 32, 64),
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        attention_head_dim=8,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    add_arguments(parser)
    args = parser.parse_args()
    torch.set_num_threads(1)
    scheduler = DDPMScheduler(num_train_timesteps=1000, prediction_type="v_prediction")
    data = patches(args.data)
    train(new_teacher, scheduler, data, steps=args.steps, out=args.out, seed=args.seed)


if __name__ == "__main__":
    main()
