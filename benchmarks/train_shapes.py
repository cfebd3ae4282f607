"""Train small teachers of the families that people use: latent, text-to-image, transformers.

    python benchmarks/draw_shapes.py --out runs/shapes/images
    python benchmarks/train_shapes.py texts --data runs/shapes/images --out runs/shapes

Forms (`shapes/forms.py`): digits (a UNet told classes), latent (LDM), texts (Stable Diffusion),
classes (DiT), flow (Stable Diffusion 3). The autoencoder and CLIP that all but the first go with
are trained first, once. OUT/FORM is the pipeline; the same command resumes. `families.py`
compresses them. On a CPU one thread each: models this small slow down with more.
"""

from __future__ import annotations

import argparse
import copy
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from shapes import parts
from shapes.forms import FORMS, Parts, untrained
from trained import ALONE
from transformers import CLIPTextModel, CLIPTextModelWithProjection
from transformers.utils import logging

from diffnas.cli.progress import show_progress
from diffnas.data import load_data
from diffnas.defaults import DROPOUT
from diffnas.device import resolve_device
from diffnas.embeddings import with_embeddings
from diffnas.families.loading import load_teacher
from diffnas.fingerprint import fingerprint
from diffnas.latents import with_latents
from diffnas.retrain import retrain
from diffnas.settings import RetrainSettings
from diffnas.student.saving import save_pipeline

AUTOENCODER_STEPS, CLIP_STEPS = 4000, 1500


def trained_parts(folder: Path, quick: bool) -> Parts:
    """Autoencoder and CLIP, trained unless the folder has them."""
    words = parts.tokenizer()
    coder = parts.kept(
        folder / "autoencoder",
        lambda: parts.autoencoder(8 if quick else AUTOENCODER_STEPS),
    )
    clip = parts.kept(folder / "clip", lambda: parts.clip(words, 8 if quick else CLIP_STEPS))
    return Parts(
        autoencoder=lambda: AutoencoderKL.from_pretrained(coder),
        tokenizer=parts.tokenizer,
        text_encoder=lambda: CLIPTextModel.from_pretrained(clip),
        text_encoder_with_projection=lambda: CLIPTextModelWithProjection.from_pretrained(clip),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("form", choices=FORMS)
    parser.add_argument("--data", type=Path, help="the folder of shapes")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a few steps: to see that it runs")
    args = parser.parse_args()
    logging.set_verbosity_error()
    device = resolve_device("auto")
    if device.type == "cpu":
        torch.set_num_threads(1)
    form, out = FORMS[args.form], args.out / args.form
    steps = 8 if args.quick else args.steps or form.steps
    if not (out / "untrained" / "model_index.json").exists():
        pipeline = untrained(args.form, trained_parts(args.out, args.quick), args.seed)
        save_pipeline(pipeline, out / "untrained")
    teacher = load_teacher(str(out / "untrained"), device=device)
    channels, height, width = teacher.image_shape
    source = "digits" if form.data == "digits" else str(args.data)
    data = load_data(
        source,
        size=(height, width),
        channels=channels,
        label_column="class",  # the folders of the shapes
        captioned=teacher.family.takes_texts,
    )
    with show_progress() as progress:
        data = with_embeddings(teacher, data, out / "data", progress)
        data = with_latents(teacher, data, out / "data", progress)
        if teacher.guidable:
            data = replace(data, condition_dropout=DROPOUT)
        model = copy.deepcopy(teacher.denoiser)
        settings = RetrainSettings(
            steps=steps,
            batch_size=form.batch_size,
            optimizer=form.optimizer,
            learning_rate=form.rate,
            ema_decay=0.999,
            **ALONE,
        )
        retrain(
            model,
            teacher,
            data,
            settings,
            seed=args.seed,
            checkpoint=out / "checkpoint.safetensors",
            fingerprint=fingerprint(settings.model_dump(), args.seed),
            progress=progress,
        )
    teacher.denoiser.load_state_dict(model.state_dict())
    save_pipeline(teacher.pipeline, out / "teacher")
    print(f"{out / 'teacher'}: {steps} steps")


if __name__ == "__main__":
    main()
