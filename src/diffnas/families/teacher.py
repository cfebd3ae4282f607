"""A loaded pipeline at work: what it is told and shown, what it encodes, what it samples."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffnas.data import Data, to_float, to_latents
from diffnas.data.buckets import shapes
from diffnas.errors import UserError
from diffnas.families import autoencoder, conditions, holes
from diffnas.families.conditions import Condition, Shows
from diffnas.families.family import STEPS, Family
from diffnas.families.resting import awake
from diffnas.families.sampling import Denoise, sample_images
from diffnas.measure.cost import call_cost

_ENCODING = threading.Lock()
"""Tokenizers change their own settings in every call: one thread at a time."""


@dataclass(frozen=True)
class Teacher:
    """A loaded pipeline, its denoiser (eval mode, frozen) and its family.

    The denoiser is on the device where all work runs; text encoders and autoencoder are there while
    they are used, and else on the CPU. ``alone``: there is no pipeline around it, so that it can be
    planned and no more.
    """

    source: str
    pipeline: Any
    denoiser: nn.Module
    family: Family
    alone: bool = False

    @property
    def device(self) -> torch.device:
        """Where the denoiser is and all work runs."""
        return next(self.denoiser.parameters()).device

    @property
    def scheduler(self) -> Any:
        """The pipeline's, for the size that the denoiser makes, as training follows it."""
        return self.scheduler_for(STEPS)

    def scheduler_for(self, steps: int) -> Any:
        """The pipeline's, for that size and so many steps."""
        return self.family.scheduler(self.denoiser, self.pipeline.scheduler, steps)

    @property
    def distilled(self) -> bool:
        """Whether it predicts what its own teacher did, and not what its data ask for."""
        return self.family.distilled(self.pipeline)

    @property
    def told_guidance(self) -> bool:
        """Whether guidance is in the denoiser, which is told how far to go."""
        return self._takes(conditions.GUIDANCE)

    @property
    def inpaints(self) -> bool:
        """Whether it fills holes in images, which it is shown."""
        return self._takes(conditions.MASK)

    def _takes(self, row: str) -> bool:
        return row in self.family.example_condition(self.denoiser, 1, torch.device("meta"))

    @property
    def guidable(self) -> bool:
        """Whether sampling can go beyond the condition, with one that stands for none."""
        return self.family.nothing is not None and not self.distilled

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images that its samples are."""
        channels, height, width = self.family.sample_shape(self.denoiser)
        if self.coder is None:
            return channels, height, width
        factor = autoencoder.shrinking(self.coder)
        return self.coder.config.in_channels, factor * height, factor * width

    def shapes(self, crop: str = "buckets") -> list[tuple[int, int]]:
        """(H, W) of images on which it can train, its samples' own among them; none for 'centre'.

        Raises:
            UserError: it takes one size alone.
        """
        if crop == "centre":
            return []
        found = []
        if self.family.sides is not None:
            sides = self.family.sides(self.denoiser)
            factor = 1 if self.coder is None else autoencoder.shrinking(self.coder)
            scaled = range(factor * sides.start, factor * sides.stop, factor * sides.step)
            found = shapes(self.image_shape[1:], scaled)
        if len(found) < 2:
            raise UserError(
                f"data.crop = {crop}: model {self.source} takes images of one size alone; "
                "leave it out"
            )
        return found

    @property
    def text_encoders(self) -> list[nn.Module]:
        """Those that the pipeline has."""
        parts = (
            getattr(self.pipeline, name, None)
            for name in self.family.beside
            if name.startswith("text_encoder")
        )
        return [part for part in parts if part is not None]

    @property
    def coder(self) -> Any:
        """The pipeline's autoencoder; None if it denoises pixels."""
        return autoencoder.autoencoder_of(self.pipeline)

    def condition(self, data: Data, rows: npt.NDArray[np.integer[Any]]) -> Condition:
        """What these images show, (B, ...); empty for a model that is not told.

        Raises:
            UserError: the data have no classes or captions, but the model takes some; or classes
                are out of range.
        """
        if self.family.takes_texts:
            return conditions.of_captions(self.told, data, rows)
        count = self.family.class_count(self.denoiser)
        return {} if count is None else conditions.of_classes(data.labels, rows, count)

    def shown(self, images: Tensor, randoms: Sequence[torch.Generator]) -> Condition:
        """Of images (B, C, H, W) in [-1, 1] what a model that :attr:`inpaints` is shown.

        ``randoms``: what the hole of each is drawn from. Grey stands in its place.
        """
        height, width = images.shape[2:]
        mask = holes.masks((height, width), randoms)
        masked = self.encode(images * (1 - mask))
        mask = F.interpolate(mask, masked.shape[2:])
        return {conditions.MASK: mask, conditions.MASKED: masked}

    def told(self, captions: list[str]) -> Condition:
        """These captions as the model's text encoders see them, (B, ...)."""
        assert self.family.captions is not None
        with _ENCODING, awake(self.text_encoders, self.device):
            return self.family.captions(self.pipeline, captions)

    def nothing(self, data: Data | None = None) -> Condition | None:
        """The condition (1, ...) that stands for none; None if there is no such."""
        if self.family.nothing is None or not self.guidable:
            return None
        if data is not None and data.embeddings is not None:
            return conditions.tensors_of(data.embeddings.nothing, np.array([0]))
        with _ENCODING, awake(self.text_encoders, self.device):
            return self.family.nothing(self.pipeline)

    def guidance(self, asked: float | None = None) -> float:
        """How far sampling goes beyond the condition: as asked, or as the pipeline does.

        Raises:
            UserError: it is asked for, and the model cannot be guided.
        """
        if not self.guidable and not self.told_guidance:
            if asked not in (None, 1.0):
                raise UserError(
                    f"evaluate.guidance = {asked:g}: model {self.source} has no condition that "
                    "stands for none, or is not to be told it, so it cannot be guided; leave it out"
                )
            return 1.0
        return conditions.own_guidance(self.pipeline) if asked is None else asked

    def calls(self, guidance: float) -> int:
        """How often the denoiser is asked in a step: where it is guided, without condition too."""
        return 2 if self.guidable and guidance != 1.0 else 1

    def clean(self, data: Data, rows: npt.NDArray[np.integer[Any]]) -> Tensor:
        """What the denoiser denoises, of these images as they are."""
        if data.latents is not None:
            return to_latents(data.latents[0][rows])
        return self.encode(to_float(data.images[rows]))

    def encode(self, images: Tensor) -> Tensor:
        """Images in [-1, 1] as the denoiser's pixels or latents."""
        if self.coder is None:
            return images
        with awake([self.coder], self.device):
            return autoencoder.encode(self.coder, images.to(self.device))

    def decode(self, samples: Tensor) -> Tensor:
        """What the denoiser denoises as images, nearly in [-1, 1]."""
        if self.coder is None:
            return samples
        with awake([self.coder], self.device):
            return autoencoder.decode(self.coder, samples)

    def sample(
        self,
        count: int,
        *,
        seed: int,
        sampler: str,
        steps: int,
        batch_size: int,
        shows: Shows | None = None,
        nothing: Condition | None = None,
        guidance: float = 1.0,
        progress: Callable[[int], None] | None = None,
    ) -> npt.NDArray[np.uint8]:
        """``count`` images, made on the denoiser's device: uint8 (count, C, H, W).

        ``shows``: indices of images (B,) -> their condition, for a model that takes one.
        ``guidance``: with ``nothing``, how far predictions go from those without the condition,
        past those with it, which are at 1 (Ho and Salimans 2022, arXiv 2207.12598); or what a
        model is told that was distilled so (Meng et al., arXiv 2210.03142).

        Raises:
            UserError: the sampler does not fit the pipeline.
            RunError: the denoiser gave values that are not finite.
        """
        device, family = self.device, self.family
        shape = family.sample_shape(self.denoiser)
        guided = nothing is not None and guidance != 1.0

        def prepare(indices: Tensor) -> Denoise:
            condition = {} if shows is None else shows(indices.numpy())
            condition = {name: each.to(device) for name, each in condition.items()}
            if (told := condition.get(conditions.GUIDANCE)) is not None:
                condition[conditions.GUIDANCE] = torch.full_like(told, guidance)
            if guided and nothing is not None:
                condition = conditions.both(condition, nothing)

            def predict(noisy: Tensor, timestep: Tensor) -> Tensor:
                noisy = torch.cat([noisy, noisy]) if guided else noisy
                inputs = family.inputs(self.denoiser, noisy, timestep, condition)
                made = family.prediction(self.denoiser(**inputs), shape[1:])[:, : shape[0]]
                if not guided:
                    return made
                told, untold = made.chunk(2)
                return untold + guidance * (told - untold)

            return predict

        def macs() -> float:
            inputs = family.example_inputs(self.denoiser, 1, device)
            return call_cost(self.denoiser, kwargs=inputs).macs * (2 if guided else 1)

        return sample_images(
            self.scheduler_for(steps),
            prepare,
            shape,
            count,
            seed=seed,
            sampler=sampler,
            steps=steps,
            batch_size=batch_size,
            device=device,
            levels=family.levels,
            decode=self.decode,
            macs=macs,
            progress=progress,
        )
