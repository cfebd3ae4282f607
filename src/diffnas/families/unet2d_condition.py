"""Pipelines of texts around ``UNet2DConditionModel``: Stable Diffusion 1, 2, XL and its refiner.

Those that fill holes in images (inpainting) take a mask and the masked image as further channels.
Latent consistency models (Luo et al., arXiv 2310.04378) are told the scale of their guidance.
"""

from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.embeddings import get_timestep_embedding
from torch import Tensor

from diffnas.families import Family, unet2d
from diffnas.families.conditions import GUIDANCE, MASK, MASKED, Condition, own_guidance, through
from diffnas.student.modeling import DiffNASUNet2DConditionModel

TOKENS = 77
"""CLIP's text encoders see so many, padded; models alone may say others in their config."""

MOST_TOKENS = 4096
"""More than any text encoder gives: a slip."""

TEXTS = "encoder_hidden_states"
ADDED = ("text_embeds", "time_ids")
"""What SDXL's are told besides: the pooled text; sizes and crop of the image."""

TIME_IDS = 6
"""SDXL's: the image's size, its crop's corner, the size that is made."""

REFINER_IDS = 5
"""Its refiner's: the image's size, its crop's corner, how well it is liked."""

LIKED, DISLIKED = 6.0, 2.5
"""With and without a caption, as in the refiner's pipeline."""

BLOCKS = {
    *("DownBlock2D", "CrossAttnDownBlock2D", "AttnDownBlock2D"),
    *("UNetMidBlock2DCrossAttn", "UNetMidBlock2D"),
    *("UpBlock2D", "CrossAttnUpBlock2D", "AttnUpBlock2D"),
}
"""Those whose layers are understood."""

PLAIN = {
    "class_embed_type": None,
    "num_class_embeds": None,
    "encoder_hid_dim_type": None,
    "time_embedding_type": "positional",
    "timestep_post_act": None,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "dual_cross_attention": False,
    "attention_type": "default",
}
"""Entries of a config that must be as they are in Stable Diffusion."""


def supports(denoiser: Any) -> str | None:
    """Say in a line why this denoiser cannot be searched; None if it can."""
    config = denoiser.config
    if (why := unet2d.misfit(config, sum(_shown(config).values()))) is not None:
        return why
    for name, value in PLAIN.items():
        if config[name] != value:
            return f"{name} {config[name]!r} is not supported; {value!r} is"
    if config.addition_embed_type not in (None, "text_time"):
        return (
            f"addition_embed_type '{config.addition_embed_type}' is not supported; 'text_time' is"
        )
    if type(rows := _tokens(config)) is not int or not 1 <= rows <= MOST_TOKENS:
        return (
            f"max_sequence_length {rows!r} in the denoiser's config.json: the rows of text states "
            f"in a call; set a number from 1 to {MOST_TOKENS}, or leave it out for {TOKENS}"
        )
    parts = (*denoiser.down_blocks, denoiser.mid_block, *denoiser.up_blocks)
    odd = {type(part).__name__ for part in parts if part is not None} - BLOCKS
    if odd:
        return f"{' and '.join(sorted(odd))} are not supported"
    return None


def fits(denoiser: Any) -> str | None:
    """Say that the pipeline's text encoder gives other rows than the config says; None if not."""
    if (rows := _tokens(denoiser.config)) == TOKENS:
        return None
    return (
        f"max_sequence_length {rows} in the denoiser's config.json: it counts for a denoiser "
        f"alone, and the pipeline's text encoder gives {TOKENS} rows; leave it out"
    )


def _shown(config: Any) -> dict[str, int]:
    """Channels that a denoiser is shown beside the noisy ones, in their order: of inpainting."""
    shown = {MASK: 1, MASKED: config.out_channels}
    return shown if config.in_channels == config.out_channels + sum(shown.values()) else {}


def example_condition(denoiser: Any, batch_size: int, device: torch.device) -> Condition:
    """Of zeros."""
    config = denoiser.config
    sizes: dict[str, tuple[int, ...]] = {
        TEXTS: (_tokens(config), _width(config.cross_attention_dim))
    }
    if config.addition_embed_type == "text_time":
        ids = _time_ids_of(config)
        sizes |= {"text_embeds": (_pooled(config, ids),), "time_ids": (ids,)}
    if config.time_cond_proj_dim is not None:
        sizes[GUIDANCE] = ()
    _, *size = unet2d.sample_shape(denoiser)
    sizes |= {name: (channels, *size) for name, channels in _shown(config).items()}
    return {name: torch.zeros(batch_size, *size, device=device) for name, size in sizes.items()}


def _tokens(config: Any) -> Any:
    """Rows of text states."""
    # Not an argument of its class, but an entry that diffusers keeps.
    return config.get("max_sequence_length", TOKENS)


def _width(cross_attention_dim: Any) -> int:
    """Of text states; a config may give it for every level, always the same."""
    several = isinstance(cross_attention_dim, tuple | list)
    return int(cross_attention_dim[0] if several else cross_attention_dim)


def _pooled(config: Any, ids: int) -> int:
    """Width of the pooled text, if beside it the model takes so many numbers."""
    return int(config.projection_class_embeddings_input_dim - ids * config.addition_time_embed_dim)


def _time_ids_of(config: Any) -> int:
    """How many; configs only tell how wide all of it is.

    The refiner's text is of one encoder, whose states are as wide as the pooled text.
    """
    refines = _pooled(config, REFINER_IDS) == _width(config.cross_attention_dim)
    return REFINER_IDS if refines else TIME_IDS


def encoders(denoiser: Any) -> tuple[str, ...]:
    """The first, of SDXL the second too, of models of one width of texts the second alone."""
    config = denoiser.config
    first, second = ("text_encoder", "tokenizer"), ("text_encoder_2", "tokenizer_2")
    if config.addition_embed_type != "text_time":
        return first
    one = _pooled(config, _time_ids_of(config)) == _width(config.cross_attention_dim)
    return second if one else (*first, *second)


def inputs(denoiser: Any, noisy: Tensor, timesteps: Tensor, condition: Condition) -> dict[str, Any]:
    """Keyword arguments of a call."""
    shown = [condition[name] for name in (MASK, MASKED) if name in condition]
    sample = torch.cat([noisy, *shown], 1) if shown else noisy
    given = {"sample": sample, "timestep": timesteps, TEXTS: condition[TEXTS]}
    if (scale := condition.get(GUIDANCE)) is not None:
        # As ``get_guidance_scale_embedding`` of diffusers' pipelines.
        width = denoiser.config.time_cond_proj_dim
        given["timestep_cond"] = get_timestep_embedding(1000 * (scale - 1), width)
    added = {name: condition[name] for name in ADDED if name in condition}
    return {**given, "added_cond_kwargs": added} if added else given


def encoded(pipeline: Any, texts: list[str], negative: bool) -> Condition:
    """As the pipeline itself encodes them."""
    device = next(pipeline.unet.parameters()).device
    given = pipeline.encode_prompt(
        prompt=texts, device=device, num_images_per_prompt=1, do_classifier_free_guidance=negative
    )
    told, *pooled = given[1::2] if negative else given[::2]
    found = {TEXTS: told}
    if pooled:
        ids = _time_ids(pipeline, negative).to(told).expand(len(texts), -1)
        found |= {"text_embeds": pooled[0], "time_ids": ids}
    if tells_guidance(pipeline):
        found[GUIDANCE] = torch.full((len(texts),), own_guidance(pipeline), device=device)
    return found


def tells_guidance(pipeline: Any) -> bool:
    """Whether guidance is distilled into its denoiser, which is told the scale."""
    return pipeline.unet.config.time_cond_proj_dim is not None


def _time_ids(pipeline: Any, negative: bool) -> Tensor:
    """Of a whole image of the size that the model makes (1, ids)."""
    _, height, width = unet2d.sample_shape(pipeline.unet)
    size = (height * pipeline.vae_scale_factor, width * pipeline.vae_scale_factor)
    refines = _time_ids_of(pipeline.unet.config) == REFINER_IDS
    last = (DISLIKED if negative else LIKED,) if refines else size
    return torch.tensor([[*size, 0, 0, *last]], dtype=torch.float32)


def sized(condition: Condition, size: tuple[int, int]) -> Condition:
    """Whole images of that size; the refiner is not told which one is made."""
    if (ids := condition.get("time_ids")) is None:
        return condition
    ids = ids.clone()
    for first in (0, 4)[: 1 + (ids.shape[1] == TIME_IDS)]:
        ids[:, first : first + 2] = torch.tensor(size)
    return {**condition, "time_ids": ids}


FAMILY = Family(
    name="unet2d_condition",
    component="unet",
    classes=(UNet2DConditionModel, DiffNASUNet2DConditionModel),
    supports=supports,
    fits=fits,
    block_names=unet2d.block_names,
    streams=unet2d.streams,
    sample_shape=unet2d.sample_shape,
    sides=unet2d.sides,
    sized=sized,
    example_condition=example_condition,
    inputs=inputs,
    beside=(
        *("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"),
        *("safety_checker", "feature_extractor", "image_encoder"),
    ),
    encoders=encoders,
    distilled=tells_guidance,
    **through(encoded),
)
