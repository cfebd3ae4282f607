"""Latents as diffusers' own pipelines make and decode them."""

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, VQModel

from diffnas.families import autoencoder, unet2d
from tests.models import tiny_flux2, tiny_latent_pipeline, tiny_pipeline


@pytest.fixture(params=[VQModel, AutoencoderKL])
def pipeline(request):
    return tiny_latent_pipeline(request.param)


def images(count=2):
    return torch.rand(count, 3, 16, 16, generator=torch.manual_seed(1)) * 2 - 1


def test_a_pipeline_of_pixels_has_none():
    assert autoencoder.autoencoder_of(tiny_pipeline()) is None


def test_latents_have_the_denoisers_shape(pipeline):
    latents = autoencoder.encode(pipeline.vqvae, images())
    assert latents.shape == (2, *unet2d.sample_shape(pipeline.unet))
    assert autoencoder.decode(pipeline.vqvae, latents).shape == (2, 3, 16, 16)


def test_latents_are_scaled_and_of_a_distribution_the_mode():
    coder = tiny_latent_pipeline(AutoencoderKL, scaling_factor=0.5, shift_factor=0.25).vqvae
    mean = coder.encode(images()).latent_dist.mean
    torch.testing.assert_close(autoencoder.encode(coder, images()), (mean - 0.25) * 0.5)


def test_samples_are_what_the_pipeline_itself_decodes(pipeline):
    """With one step from the same noise."""
    latents = torch.randn(1, 3, 8, 8, generator=torch.manual_seed(0))
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        generator=torch.manual_seed(0), num_inference_steps=1, output_type="np"
    ).images
    pipeline.scheduler.set_timesteps(1)
    (step,) = pipeline.scheduler.timesteps
    with torch.no_grad():
        predicted = pipeline.unet(latents, step).sample
    made = pipeline.scheduler.step(predicted, step, latents).prev_sample
    ours = autoencoder.decode(pipeline.vqvae, made)
    torch.testing.assert_close(
        (ours / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1), torch.from_numpy(theirs)
    )


def test_many_images_are_coded_a_few_at_a_time(pipeline, monkeypatch):
    coder, many = pipeline.vqvae, images(5)
    latents = autoencoder.encode(coder, many)
    decoded = autoencoder.decode(coder, latents)
    monkeypatch.setattr(autoencoder, "PIXELS", 2 * 16 * 16)
    torch.testing.assert_close(autoencoder.encode(coder, many), latents)
    torch.testing.assert_close(autoencoder.decode(coder, latents), decoded)


def test_the_tiny_autoencoder_is_one_too():
    coder = AutoencoderTiny(
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
        latent_channels=3,
    ).eval()
    latents = autoencoder.encode(coder, images())
    assert latents.shape == (2, 3, 8, 8)
    assert autoencoder.shrinking(coder) == 2
    assert autoencoder.decode(coder, latents).shape == (2, 3, 16, 16)


def test_latents_of_squares_are_normalised_as_the_pipeline_does():
    pipeline = tiny_flux2()
    latents = autoencoder.encode(pipeline.vae, images())
    assert latents.shape == (2, 16, 4, 4)
    with torch.no_grad():
        theirs = pipeline._encode_vae_image(images(), generator=None)
    torch.testing.assert_close(latents, theirs)


def test_latents_of_squares_are_decoded_as_they_were_encoded():
    coder = tiny_flux2().vae
    plain = coder.encode(images()).latent_dist.mode()
    decoded = autoencoder.decode(coder, autoencoder.encode(coder, images()))
    torch.testing.assert_close(decoded, coder.decode(plain).sample)
    assert autoencoder.shrinking(coder) == 4
    assert autoencoder.latent_channels(coder) == 16
    assert autoencoder.plain_shape(coder, (16, 4, 4)) == tuple(plain.shape[1:])
