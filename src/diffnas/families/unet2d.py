"""Pipelines around ``UNet2DModel``: DDPM, DDIM and their samplers, of pixels or of latents."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from diffnas.errors import UserError
from diffnas.families import Batch, Family, Ports, autoencoder
from diffnas.families.noise import add_noise, train_timesteps
from diffnas.families.sampling import sample_images
from diffnas.measure.cost import call_cost
from diffnas.rng import generator
from diffnas.student.modeling import DiffNASUNet2DModel


def supports(denoiser: Any) -> str | None:
    """Say in a line why this denoiser cannot be searched; None if it can."""
    # A subclass may compute more than its blocks do, and a student would lose that.
    if type(denoiser) not in (UNet2DModel, DiffNASUNet2DModel):
        return f"{type(denoiser).__name__} is not supported; supported are UNet2DModel denoisers"
    config = denoiser.config
    if config.in_channels != config.out_channels:
        return (
            f"in_channels {config.in_channels} and out_channels {config.out_channels} differ: "
            "models that learn their variance or take a condition image are not supported"
        )
    if config.sample_size is None:
        return "sample_size is not set in the denoiser's config.json; set the image size there"
    if config.time_embedding_type == "fourier":
        return "time_embedding_type 'fourier' (score SDE) is not supported; 'positional' is"
    if config.class_embed_type is not None:
        return f"class_embed_type '{config.class_embed_type}' is not supported; num_class_embeds is"
    blocks = [*denoiser.down_blocks, *denoiser.up_blocks]
    odd = {type(block).__name__ for block in blocks if hasattr(block, "skip_conv")}
    if odd:
        return f"{' and '.join(sorted(odd))} (image skips between blocks) are not supported"
    return None


def block_names(denoiser: nn.Module) -> list[str]:
    """One block per resolution level, down, middle and up."""
    down = [f"down_blocks.{i}" for i in range(len(_unet(denoiser).down_blocks))]
    mid = ["mid_block"] if _unet(denoiser).mid_block is not None else []
    up = [f"up_blocks.{i}" for i in range(len(_unet(denoiser).up_blocks))]
    return down + mid + up


def streams(denoiser: nn.Module) -> dict[str, Ports]:
    """Two streams a level: down to its last layer, whose skips are the same stream; and up.

    Layers that add their input to their output join both into one stream.
    """
    unet = _unet(denoiser)
    found = {"conv_in": Ports((), "down 0")}
    above = "down 0"
    for level, block in enumerate(unet.down_blocks):
        found |= _ports(f"down_blocks.{level}", block, [(above,)], f"down {level}")
        above = f"down {level}"
    if unet.mid_block is not None:
        found |= _ports("mid_block", unet.mid_block, [(above,)], above)
    for i, block in enumerate(unet.up_blocks):
        level = len(unet.up_blocks) - 1 - i
        own, count = f"up {level}", len(block.resnets)
        skips = [f"down {level}"] * (count - 1) + [f"down {max(level - 1, 0)}"]
        hidden = [above] + [own] * (count - 1)
        found |= _ports(f"up_blocks.{i}", block, list(zip(hidden, skips, strict=True)), own)
        above = own
    found |= {"conv_norm_out": Ports((above,), None), "conv_out": Ports((above,), None)}
    same: dict[str, str] = {}
    for path, ports in found.items():
        layer = denoiser.get_submodule(path)
        if getattr(layer, "conv_shortcut", layer) is None:
            same[str(ports.writes)] = same.get(ports.reads[0], ports.reads[0])
    return {
        path: Ports(
            tuple(same.get(stream, stream) for stream in ports.reads),
            same.get(str(ports.writes), ports.writes),
        )
        for path, ports in found.items()
    }


def _ports(path: str, block: Any, reads: list[tuple[str, ...]], writes: str) -> dict[str, Ports]:
    """Of a block's modules; ``reads`` of its ResNet layers, further ones read what it writes."""
    found = {}
    for kind in ("resnets", "attentions", "downsamplers", "upsamplers"):
        for i, module in enumerate(getattr(block, kind, None) or []):
            if module is not None:
                given = reads[i] if kind == "resnets" and i < len(reads) else (writes,)
                found[f"{path}.{kind}.{i}"] = Ports(given, writes)
    return found


def sample_shape(denoiser: nn.Module) -> tuple[int, int, int]:
    """(C, H, W) of pixels or latents."""
    config = _unet(denoiser).config
    size = config.sample_size
    height, width = (size, size) if isinstance(size, int) else size
    return config.in_channels, height, width


def class_count(denoiser: nn.Module) -> int | None:
    """How many classes the denoiser takes; None if it takes none."""
    classes: int | None = _unet(denoiser).config.num_class_embeds
    return classes


def example_inputs(denoiser: nn.Module, batch_size: int, device: torch.device) -> dict[str, Any]:
    """Keyword arguments of one call on images of zeros."""
    inputs = {
        "sample": torch.zeros(batch_size, *sample_shape(denoiser), device=device),
        "timestep": torch.zeros(batch_size, dtype=torch.long, device=device),
    }
    if class_count(denoiser) is not None:
        inputs["class_labels"] = torch.zeros(batch_size, dtype=torch.long, device=device)
    return inputs


def training_batch(
    pipeline: Any,
    images: Tensor,
    labels: Tensor | None,
    noise_from: torch.Generator,
    timesteps: Tensor | None = None,
) -> Batch:
    """Noisy pixels or latents at random timesteps and what the denoiser should predict.

    ``images``: pixels in [-1, 1], or latents, (B, C, H, W); ``labels``: integer classes (B,), left
    out when the denoiser takes none; ``noise_from``: a CPU generator, so that devices get the same
    noise; ``timesteps``: integers (B,), uniform over the schedule when None.

    Raises:
        UserError: the scheduler's noise is unknown, or labels are missing or out of range.
    """
    config = pipeline.scheduler.config
    noise = torch.randn(images.shape, generator=noise_from).to(images.device, images.dtype)
    if timesteps is None:
        timesteps = torch.randint(train_timesteps(config), (len(images),), generator=noise_from)
    noisy, target = add_noise(config, images, noise, timesteps)
    inputs: dict[str, Any] = {"sample": noisy, "timestep": timesteps.to(images.device)}
    if (classes := class_count(pipeline.unet)) is not None:
        inputs["class_labels"] = _checked(labels, classes).to(images.device)
    return Batch(inputs, target)


def prediction(output: Any) -> Tensor:
    """Predicted tensor (B, C, H, W) of a denoiser's output."""
    tensor: Tensor = output.sample
    return tensor


def sample(
    pipeline: Any,
    denoiser: nn.Module,
    count: int,
    *,
    seed: int,
    sampler: str,
    steps: int,
    batch_size: int,
    labels: npt.NDArray[np.int64] | None = None,
    progress: Callable[[int], None] | None = None,
) -> npt.NDArray[np.uint8]:
    """``count`` images on the denoiser's device, uint8 (count, C, H, W).

    ``labels``: classes (count,) for a class-conditional denoiser; random ones when None.

    Raises:
        UserError: the sampler does not fit the pipeline, or labels are out of range.
        RunError: the denoiser gave values that are not finite.
    """
    device = next(denoiser.parameters()).device
    coder = autoencoder.autoencoder_of(pipeline)
    classes = class_count(denoiser)
    chosen = None
    if classes is not None:
        chosen = (
            torch.randint(classes, (count,), generator=generator(seed, "sample classes", 0))
            if labels is None
            else _checked(torch.from_numpy(labels), classes)
        )

    def predict(noisy: Tensor, timestep: Tensor, indices: Tensor) -> Tensor:
        condition = {} if chosen is None else {"class_labels": chosen[indices].to(device)}
        return prediction(denoiser(sample=noisy, timestep=timestep, **condition))

    return sample_images(
        pipeline.scheduler,
        predict,
        sample_shape(denoiser),
        count,
        seed=seed,
        sampler=sampler,
        steps=steps,
        batch_size=batch_size,
        device=device,
        decode=None if coder is None else partial(autoencoder.decode, coder),
        macs=call_cost(denoiser, kwargs=example_inputs(denoiser, 1, device)).macs,
        progress=progress,
    )


def _unet(denoiser: nn.Module) -> Any:
    return denoiser  # untyped: diffusers' configs are


def _checked(labels: Tensor | None, classes: int) -> Tensor:
    if labels is None:
        raise UserError(
            f"data: no classes, but the model takes one of {classes}; "
            "give a folder per class or set data.label_column"
        )
    unknown = labels[(labels < 0) | (labels >= classes)]
    if len(unknown):
        raise UserError(
            f"data: class {int(unknown[0])} is out of range; the model knows 0 to {classes - 1}"
        )
    return labels


FAMILY = Family(
    name="unet2d",
    component="unet",
    supports=supports,
    block_names=block_names,
    streams=streams,
    sample_shape=sample_shape,
    class_count=class_count,
    example_inputs=example_inputs,
    training_batch=training_batch,
    prediction=prediction,
    sample=sample,
)
