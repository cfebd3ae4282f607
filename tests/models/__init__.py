"""Small pipelines of the real classes, made on the spot."""

from tests.models.dits import (
    tiny_dit,
    tiny_flux,
    tiny_flux2,
    tiny_pixart,
    tiny_pixart_alpha,
    tiny_sd3,
)
from tests.models.latent import (
    SD_NOISE,
    tiny_condition_unet,
    tiny_inpainting,
    tiny_latent_pipeline,
    tiny_lcm,
    tiny_refiner,
    tiny_stable_diffusion,
    tiny_xl,
    tiny_xl_inpainting,
)
from tests.models.parts import (
    tiny_autoencoder,
    tiny_qwen,
    tiny_t5,
    tiny_text_encoder,
    tiny_tokenizer,
)
from tests.models.unets import VARIANTS, tiny_pipeline, tiny_unet

__all__ = [
    "SD_NOISE",
    "VARIANTS",
    "tiny_autoencoder",
    "tiny_condition_unet",
    "tiny_dit",
    "tiny_flux",
    "tiny_flux2",
    "tiny_inpainting",
    "tiny_latent_pipeline",
    "tiny_lcm",
    "tiny_pipeline",
    "tiny_pixart",
    "tiny_pixart_alpha",
    "tiny_qwen",
    "tiny_refiner",
    "tiny_sd3",
    "tiny_stable_diffusion",
    "tiny_t5",
    "tiny_text_encoder",
    "tiny_tokenizer",
    "tiny_unet",
    "tiny_xl",
    "tiny_xl_inpainting",
]
