"""Text-to-image transformers: PixArt-alpha, -sigma (Chen et al., arXiv 2310.00426, 2403.04692)."""

from typing import Any

import torch
from diffusers import PixArtTransformer2DModel
from diffusers.utils import is_bs4_available, is_ftfy_available
from torch import Tensor

from diffnas.families import Family, dit
from diffnas.families.conditions import Condition, through
from diffnas.student.modeling import DiffNASPixArtTransformer2DModel

TOKENS, FEWER = 300, 120
"""Of captions of PixArt-sigma, padded, and of alpha."""

TEXTS, MASK = "encoder_hidden_states", "encoder_attention_mask"

ADDED = {"resolution": 2, "aspect_ratio": 1}
"""What PixArt-alpha at 1024 pixels is told besides: height and width, and their ratio."""


def example_condition(denoiser: Any, batch_size: int, device: torch.device) -> Condition:
    """Of zeros."""
    texts = denoiser.config.caption_channels or denoiser.config.cross_attention_dim
    # Configs of alpha's smaller models are as those of sigma's.
    rows = FEWER if denoiser.use_additional_conditions else TOKENS
    sizes: dict[str, tuple[int, ...]] = {TEXTS: (rows, texts), MASK: (rows,)}
    if denoiser.use_additional_conditions:
        sizes |= {name: (size,) for name, size in ADDED.items()}
    return {name: torch.zeros(batch_size, *size, device=device) for name, size in sizes.items()}


def inputs(denoiser: Any, noisy: Tensor, timesteps: Tensor, condition: Condition) -> dict[str, Any]:
    """Keyword arguments of a call."""
    return {
        "hidden_states": noisy,
        "timestep": timesteps.expand(len(noisy)),
        TEXTS: condition[TEXTS],
        MASK: condition[MASK],
        "added_cond_kwargs": {name: condition.get(name) for name in ADDED},
    }


def encoded(pipeline: Any, texts: list[str], negative: bool) -> Condition:
    """As the pipeline itself encodes them."""
    device = next(pipeline.transformer.parameters()).device
    given = pipeline.encode_prompt(
        texts,
        device=device,
        do_classifier_free_guidance=negative,
        # As its call does; without these two packages it says every time that it does not.
        clean_caption=is_bs4_available() and is_ftfy_available(),
    )
    told, mask = given[2:] if negative else given[:2]
    found = {TEXTS: told, MASK: mask}
    if pipeline.transformer.use_additional_conditions:
        _, height, width = dit.sample_shape(pipeline.transformer)
        size = torch.tensor([[height, width]], dtype=told.dtype, device=device)
        found["resolution"] = (size * pipeline.vae_scale_factor).expand(len(texts), -1)
        found["aspect_ratio"] = (size[:, :1] / size[:, 1:]).expand(len(texts), -1)
    return found


def sides(denoiser: Any) -> range:
    """Heights and widths of whole tokens; it has positions for any."""
    return range(denoiser.config.patch_size, 2**31, denoiser.config.patch_size)


def sized(condition: Condition, size: tuple[int, int]) -> Condition:
    """Of that height and width, where the model is told them."""
    if "resolution" not in condition:
        return condition
    told = torch.tensor([size]).to(condition["resolution"])
    ratio = told[:, :1] / told[:, 1:]
    changed = {"resolution": told, "aspect_ratio": ratio}
    return condition | {name: each.expand_as(condition[name]) for name, each in changed.items()}


FAMILY = Family(
    name="pixart",
    component="transformer",
    classes=(PixArtTransformer2DModel, DiffNASPixArtTransformer2DModel),
    supports=dit.supports,
    block_names=dit.block_names,
    sample_shape=dit.sample_shape,
    sides=sides,
    sized=sized,
    example_condition=example_condition,
    inputs=inputs,
    beside=("text_encoder", "tokenizer"),
    **through(encoded),
)
