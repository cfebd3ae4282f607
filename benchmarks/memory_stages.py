"""What `memory.py` measures: small models of random weights, and each stage of a run on them."""

from __future__ import annotations

import ctypes
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    DiTTransformer2DModel,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from gpu_rows import noise
from shapes.parts import tokenizer
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel
from untrained import cifar_unet, small_unet

from diffnas.architecture import Architecture, Space
from diffnas.budget import parse_budget
from diffnas.data import Data
from diffnas.defaults import resolve
from diffnas.effects import output_errors
from diffnas.embeddings import PART, with_embeddings
from diffnas.families import Teacher, dit, unet2d, unet2d_condition
from diffnas.forecast.memory import stage_bytes
from diffnas.latents import with_latents
from diffnas.retrain import Retraining
from diffnas.scoring import score
from diffnas.settings import Settings, parse
from diffnas.student.modeling import trunk_groups
from diffnas.supernet import Supernet
from diffnas.supernet_training import BlockTraining
from diffnas.timing import edited
from diffnas.trunk import Trunk, make_trunk, widths
from diffnas.trunk_width import space_for

M_MMAP_THRESHOLD = -3
"""glibc's name for it: larger pieces go back to the system as soon as they are free."""

STEPS = 2
IMAGES = 64


@dataclass(frozen=True)
class Model:
    """How a teacher is made, whole and for `--quick`, and the size of its batches."""

    make: Callable[[], Teacher]
    small: Callable[[], Teacher]
    batch_size: int
    trunk: bool = False


def of_pixels(unet: Any) -> Teacher:
    """A teacher around a UNet."""
    pipeline = SimpleNamespace(unet=unet, scheduler=DDPMScheduler())
    return Teacher("unet", pipeline, unet, unet2d.FAMILY)


def stable_diffusion(width: int = 64, size: int = 16, layers: int = 12) -> Teacher:
    """Stable Diffusion with four levels from ``width`` on; its text encoder 8 times as wide."""
    widths = (width, 2 * width, 4 * width, 4 * width)
    words = tokenizer()
    text = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=8 * width,
        intermediate_size=32 * width,
        num_hidden_layers=layers,
        num_attention_heads=8,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    groups = min(32, width)
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL(
            block_out_channels=widths,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            norm_num_groups=groups,
        ),
        text_encoder=CLIPTextModel(text),
        tokenizer=words,
        unet=UNet2DConditionModel(
            sample_size=size,
            block_out_channels=widths,
            cross_attention_dim=8 * width,
            attention_head_dim=min(8, width),
            norm_num_groups=groups,
        ),
        scheduler=DDIMScheduler(clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return Teacher("sd", pipeline, pipeline.unet, unet2d_condition.FAMILY)


def transformer(layers: int = 12, heads: int = 6, size: int = 32) -> Teacher:
    """A DiT of heads of 64 channels."""
    denoiser = DiTTransformer2DModel(
        num_attention_heads=heads, attention_head_dim=64, num_layers=layers, sample_size=size
    )
    pipeline = SimpleNamespace(transformer=denoiser, scheduler=DDIMScheduler(clip_sample=False))
    return Teacher("dit", pipeline, denoiser, dit.FAMILY)


MODELS = {
    "unet": Model(lambda: of_pixels(cifar_unet()), lambda: of_pixels(small_unet()), 8),
    "trunk": Model(lambda: of_pixels(cifar_unet()), lambda: of_pixels(small_unet()), 8, True),
    "sd": Model(stable_diffusion, lambda: stable_diffusion(8, 8, 2), 16),
    "dit": Model(transformer, lambda: transformer(2, 2, 8), 8),
}


@dataclass(frozen=True)
class Work:
    """What a stage works on."""

    teacher: Teacher
    data: Data
    space: Space
    settings: Settings
    folder: Path

    def trunk(self) -> Trunk | None:
        """The first channels of every stream; which ones makes no difference here."""
        if self.space.trunk is None:
            return None
        groups, of = self.space.trunk[0], trunk_groups(self.teacher.denoiser)
        assert self.teacher.family.streams is not None
        every = widths(self.teacher.denoiser, self.teacher.family.streams(self.teacher.denoiser))
        kept = {stream: torch.arange(width * groups // of) for stream, width in every.items()}
        return make_trunk(self.teacher, kept)

    def supernet(self) -> Supernet:
        """Untrained."""
        return Supernet(self.teacher, self.space, self.trunk())


def work(model: str, device: str, folder: Path, *, quick: bool) -> Work:
    """A model on the device, random images, few subnets."""
    chosen = MODELS[model]
    torch.manual_seed(0)
    teacher = (chosen.small if quick else chosen.make)()
    for part in vars(teacher.pipeline).values():
        if isinstance(part, nn.Module):
            part.eval().requires_grad_(False)
    teacher.denoiser.to(device)
    size = 4 if quick else chosen.batch_size
    settings = parse(
        {
            "space": {"max_subnets": 16, **({} if chosen.trunk else {"trunk": 1})},
            "supernet": {"batch_size": size},
            "score": {"batch_size": size, "images": size, "output_images": size, "candidates": 3},
            "retrain": {"batch_size": size},
            "evaluate": {"samples": max(16, size), "batch_size": size, "sampler_steps": STEPS},
            "max_steps": STEPS,
        }
    )
    settings, space, _ = space_for(
        settings, teacher.denoiser, teacher.family, parse_budget(macs=0.5)
    )
    _, height, width = teacher.family.sample_shape(teacher.denoiser)
    resolved = resolve(settings, params=space.teacher.params, size=(height, width))[0]
    return Work(teacher, noise(teacher), space, resolved, folder)


def images(this: Work) -> Data:
    """Pixels of the teacher's shape, each with a caption of its own."""
    shape = (IMAGES, *this.teacher.image_shape)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    rows = np.arange(IMAGES)
    captions = tuple(f"red square {row}" for row in range(2 * PART))
    return Data("noise", pixels, None, rows, rows, "none", captions=captions)


def captions(this: Work) -> None:
    with_embeddings(this.teacher, images(this), this.folder)


def encode(this: Work) -> None:
    with_latents(this.teacher, images(this), this.folder)


def supernet(this: Work) -> None:
    net = this.supernet()
    training = BlockTraining(
        net, this.data, this.settings.supernet, net.blocks, seed=0, precision="fp32"
    )
    for index in range(STEPS):
        training.step(index)


def scores(this: Work) -> None:
    net = this.supernet()
    table = score(net, this.data, this.settings.score)
    output_errors(net, this.data, table, this.settings.score)


def student(this: Work) -> tuple[nn.Module, Trunk | None]:
    """As large as the supernet, as the forecast takes it; the supernet itself is let go."""
    net = this.supernet()
    whole = {block.name: block.teacher for block in this.space.blocks}
    return net.build(Architecture(whole)), net.trunk


def retrain(this: Work) -> None:
    model, trunk = student(this)
    made: Any = model
    training = Retraining(
        made, this.teacher, this.data, this.settings.retrain, seed=0, precision="fp32", trunk=trunk
    )
    for index in range(STEPS):
        training.step(index)


def evaluate(this: Work) -> None:
    small = edited(this.teacher.denoiser, this.space.own, this.space)
    kept, judged = (small, this.trunk()), this.settings.evaluate
    told = this.data.embeddings is not None or this.data.labels is not None
    assert judged.batch_size is not None
    this.teacher.sample(
        judged.samples,
        seed=0,
        sampler="ddim",
        steps=judged.sampler_steps,
        batch_size=judged.batch_size,
        shows=(lambda rows: this.teacher.condition(this.data, rows % IMAGES)) if told else None,
        nothing=this.teacher.nothing(this.data),
        guidance=this.teacher.guidance(judged.guidance),
    )
    del kept


STAGES: dict[str, Callable[[Work], None]] = {
    each.__name__: each for each in (captions, encode, supernet, scores, retrain, evaluate)
}


def foretold(model: str, device: str, *, quick: bool) -> dict[str, int]:
    """Bytes that each stage is foretold to take."""
    this = work(model, "cpu", Path(), quick=quick)
    found = stage_bytes(this.teacher, this.space, this.settings, torch.device(device))
    return {stage: each for stage, each in found.items() if each is not None}


def measured(model: str, stage: str, device: str, *, quick: bool) -> int:
    """Bytes that a stage took at its peak, in this process."""
    if torch.device(device).type == "cuda":
        run(model, stage, device, quick=quick)
        return torch.cuda.max_memory_allocated(device)
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 2**16)
    first_operators()
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = resident("RssAnon")
    run(model, stage, device, quick=quick)
    return resident("VmHWM") - resident("RssFile") - before  # without the code of libraries


def run(model: str, stage: str, device: str, *, quick: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        STAGES[stage](work(model, device, Path(folder), quick=quick))


def first_operators() -> None:
    """Let libraries load what they load on their first call."""
    layer = nn.Sequential(nn.Conv2d(8, 8, 3), nn.GroupNorm(2, 8), nn.SiLU())
    layer(torch.zeros(1, 8, 8, 8)).sum().backward()
    torch.optim.AdamW(layer.parameters(), fused=True).step()


def resident(which: str) -> int:
    """Bytes of this process's memory, as Linux tells them."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(which))
