"""The kinds of teacher, a file each."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from diffnas.data import Data, batch, to_float, to_latents
from diffnas.families import autoencoder


@dataclass(frozen=True)
class Batch:
    """One denoiser call and what it should give.

    ``inputs``: keyword arguments of the denoiser; ``target``: what the scheduler's prediction type
    asks for (noise, velocity or clean image), shape (B, C, H, W).
    """

    inputs: dict[str, Any]
    target: Tensor


@dataclass(frozen=True)
class Ports:
    """The streams that a module reads, joined in this order, and the one it writes; by name."""

    reads: tuple[str, ...]
    writes: str | None


@dataclass(frozen=True)
class Family:
    """What DiffNAS must know of a kind of teacher. Each family module makes one.

    ``component``: the pipeline component that is the denoiser, e.g. ``unet``.
    ``supports``: a line saying why this denoiser cannot be searched, or None if it can.
    ``block_names``: denoiser -> paths of its blocks, in the order in which they run.
    ``streams``: denoiser -> the ports of every module on a stream, by path: what one of them writes
    has one meaning per channel, so that the same channels can be left out wherever it is read.
    ``sample_shape``: denoiser -> (C, H, W) of what it denoises, pixels or latents.
    ``class_count``: denoiser -> how many classes it takes, None if none.
    ``example_inputs``: (denoiser, batch size, device) -> keyword arguments of one call.
    ``training_batch``: (pipeline, clean pixels in [-1, 1] or latents (B, C, H, W), labels (B,) or
    None, CPU generator, timesteps or None = uniform) -> :class:`Batch` on the images' device.
    ``prediction``: the denoiser's output -> the predicted tensor.
    ``sample``: (pipeline, denoiser, count, seed, sampler, steps, batch size, labels (N,) or None =
    uniform) -> uint8 (N, C, H, W).
    """

    name: str
    component: str
    supports: Callable[[Any], str | None]
    block_names: Callable[[nn.Module], list[str]]
    streams: Callable[[nn.Module], dict[str, Ports]]
    sample_shape: Callable[[nn.Module], tuple[int, int, int]]
    class_count: Callable[[nn.Module], int | None]
    example_inputs: Callable[[nn.Module, int, torch.device], dict[str, Any]]
    training_batch: Callable[[Any, Tensor, Tensor | None, torch.Generator, Tensor | None], Batch]
    prediction: Callable[[Any], Tensor]
    sample: Callable[..., npt.NDArray[np.uint8]]


@dataclass(frozen=True)
class Teacher:
    """A loaded pipeline, its denoiser (eval mode, frozen) and its family."""

    source: str
    pipeline: Any
    denoiser: nn.Module
    family: Family

    @property
    def device(self) -> torch.device:
        """Where the denoiser is and all work runs."""
        return next(self.denoiser.parameters()).device

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images that its samples are."""
        channels, height, width = self.family.sample_shape(self.denoiser)
        if (coder := autoencoder.autoencoder_of(self.pipeline)) is None:
            return channels, height, width
        factor = autoencoder.shrinking(coder)
        return coder.config.in_channels, factor * height, factor * width

    def training_batch(
        self,
        clean: Tensor,
        labels: Tensor | None,
        random: torch.Generator,
        timesteps: Tensor | None = None,
    ) -> Batch:
        """Clean pixels in [-1, 1], or latents, made noisy, on the denoiser's device.

        ``timesteps`` (B,): uniform unless given; they and the noise are drawn on the CPU.
        """
        labels = None if labels is None else labels.to(self.device)
        return self.family.training_batch(
            self.pipeline, clean.to(self.device), labels, random, timesteps
        )

    def random_batch(self, data: Data, size: int, random: torch.Generator) -> Batch:
        """Seen images, augmented, at uniform timesteps, made noisy."""
        drawn, labels = batch(data, size, random)
        return self.training_batch(
            drawn if data.latents is not None else self.encode(drawn), labels, random
        )

    def clean(self, data: Data, rows: npt.NDArray[np.integer[Any]]) -> Tensor:
        """What the denoiser denoises, of these images as they are."""
        if data.latents is not None:
            return to_latents(data.latents[0][rows])
        return self.encode(to_float(data.images[rows]))

    def encode(self, images: Tensor) -> Tensor:
        """Images in [-1, 1] as the denoiser's pixels or latents."""
        coder = autoencoder.autoencoder_of(self.pipeline)
        return images if coder is None else autoencoder.encode(coder, images.to(self.device))
