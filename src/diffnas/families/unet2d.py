"""Pipelines around ``UNet2DModel``: DDPM, DDIM and their samplers, of pixels or of latents."""

from typing import Any

import torch
from diffusers import UNet2DModel
from torch import Tensor

from diffnas.families import Family, Ports
from diffnas.families.conditions import CLASSES, Condition
from diffnas.student.modeling import DiffNASUNet2DModel


def supports(denoiser: Any) -> str | None:
    """Say in a line why this denoiser cannot be searched; None if it can."""
    config = denoiser.config
    if (why := misfit(config)) is not None:
        return why
    if config.time_embedding_type == "fourier":
        return "time_embedding_type 'fourier' (score SDE) is not supported; 'positional' is"
    if config.class_embed_type is not None:
        return f"class_embed_type '{config.class_embed_type}' is not supported; num_class_embeds is"
    blocks = [*denoiser.down_blocks, *denoiser.up_blocks]
    odd = {type(block).__name__ for block in blocks if hasattr(block, "skip_conv")}
    if odd:
        return f"{' and '.join(sorted(odd))} (image skips between blocks) are not supported"
    return None


def misfit(config: Any, shown: int = 0) -> str | None:
    """Say in a line why a UNet's images are not its own; None if they are.

    ``shown``: channels that it takes beside them.
    """
    if config.in_channels != config.out_channels + shown:
        return (
            f"in_channels {config.in_channels} and out_channels {config.out_channels} differ: "
            "models that learn their variance or take a condition image are not supported"
        )
    if config.sample_size is None:
        return (
            "sample_size is not set in the denoiser's config.json; set the size of images, or of "
            "latents, there"
        )
    return None


def block_names(denoiser: Any) -> list[str]:
    """One block per resolution level, down, middle and up."""
    down = [f"down_blocks.{i}" for i in range(len(denoiser.down_blocks))]
    mid = ["mid_block"] if denoiser.mid_block is not None else []
    up = [f"up_blocks.{i}" for i in range(len(denoiser.up_blocks))]
    return down + mid + up


def streams(denoiser: Any) -> dict[str, Ports]:
    """Two streams a level: down to its last layer, whose skips are the same stream; and up.

    Layers that add their input to their output join both into one stream.
    """
    found = {"conv_in": Ports((), "down 0")}
    above = "down 0"
    for level, block in enumerate(denoiser.down_blocks):
        found |= _ports(f"down_blocks.{level}", block, [(above,)], f"down {level}")
        above = f"down {level}"
    if denoiser.mid_block is not None:
        found |= _ports("mid_block", denoiser.mid_block, [(above,)], above)
    for i, block in enumerate(denoiser.up_blocks):
        level = len(denoiser.up_blocks) - 1 - i
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


def sample_shape(denoiser: Any) -> tuple[int, int, int]:
    """(C, H, W) of pixels or latents."""
    size = denoiser.config.sample_size
    height, width = (size, size) if isinstance(size, int) else size
    return denoiser.config.out_channels, height, width


def sides(denoiser: Any) -> range:
    """Heights and widths that can be halved on every level but the lowest."""
    least = 2 ** (len(denoiser.config.block_out_channels) - 1)
    return range(least, 2**31, least)


def class_count(denoiser: Any) -> int | None:
    """How many classes the denoiser takes; None if it takes none."""
    return denoiser.config.num_class_embeds


def example_condition(denoiser: Any, batch_size: int, device: torch.device) -> Condition:
    """Of zeros."""
    if class_count(denoiser) is None:
        return {}
    return {CLASSES: torch.zeros(batch_size, dtype=torch.long, device=device)}


def inputs(denoiser: Any, noisy: Tensor, timesteps: Tensor, condition: Condition) -> dict[str, Any]:
    """Keyword arguments of a call."""
    return {"sample": noisy, "timestep": timesteps, **condition}


FAMILY = Family(
    name="unet2d",
    component="unet",
    classes=(UNet2DModel, DiffNASUNet2DModel),
    supports=supports,
    block_names=block_names,
    streams=streams,
    sample_shape=sample_shape,
    sides=sides,
    class_count=class_count,
    example_condition=example_condition,
    inputs=inputs,
)
