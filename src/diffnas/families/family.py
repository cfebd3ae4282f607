"""What must be known of a kind of teacher, and a call of its denoiser."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffnas.blocks import map_tensors
from diffnas.families.conditions import Condition
from diffnas.families.noise import at_size, follows_size
from diffnas.families.samplers import Levels

STEPS = 50
"""Diffusers' pipelines take about so many unless asked for others; training has their noise."""


Size = tuple[int, int]
"""(H, W)."""


@dataclass(frozen=True)
class Batch:
    """One denoiser call and what it should give.

    ``inputs``: keyword arguments of the denoiser; ``target``: what the scheduler's prediction type
    asks for (noise, velocity or clean image), shape (B, C, H, W). ``shared``: names of inputs that
    all rows share. ``timesteps``: integers (B,); ``weights``: (B,), what each row's error counts,
    1 unless given; both on the CPU.
    """

    inputs: dict[str, Any]
    target: Tensor
    shared: tuple[str, ...] = ()
    timesteps: Tensor | None = None
    weights: Tensor | None = None

    @property
    def size(self) -> Size:
        """(H, W) of what the denoiser is given."""
        return self.target.shape[2], self.target.shape[3]

    def rows(self, chosen: slice | Tensor) -> "Batch":
        """Those of the batch alone; tensors that are not of its length are shared too.

        ``chosen``: a slice, or indices (N,).
        """
        count = len(self.target)

        def cut(tensor: Tensor) -> Tensor:
            return tensor[chosen] if tensor.ndim and len(tensor) == count else tensor

        own = {name: each for name, each in self.inputs.items() if name not in self.shared}
        return replace(
            self,
            inputs={**self.inputs, **map_tensors(cut, own)},
            target=self.target[chosen],
            timesteps=None if self.timesteps is None else self.timesteps[chosen],
            weights=None if self.weights is None else self.weights[chosen],
        )

    def error(self, predicted: Tensor, reduction: str = "mean") -> Tensor:
        """Squared error of a prediction, in float32; of its first channels, where it has more."""
        return self.distance(predicted[:, : self.target.shape[1]], self.target, reduction)

    def distance(self, predicted: Tensor, to: Tensor, reduction: str = "mean") -> Tensor:
        """Squared distance of a prediction to another of its shape, in float32, by the weights."""
        predicted, to = predicted.float(), to.float()
        if self.weights is None:
            return F.mse_loss(predicted, to, reduction=reduction)
        weights = self.weights.to(predicted)[:, None, None, None]
        return F.mse_loss(weights.sqrt() * predicted, weights.sqrt() * to, reduction=reduction)


@dataclass(frozen=True)
class Ports:
    """The streams that a module reads, joined in this order, and the one it writes; by name."""

    reads: tuple[str, ...]
    writes: str | None


@dataclass(frozen=True)
class Family:
    """What DiffNAS must know of a kind of teacher. Each family module makes one.

    To a family's own functions a denoiser is ``Any``: diffusers' configs have no types.

    ``component``: the pipeline component that is the denoiser, e.g. ``unet``.
    ``classes``: of the denoiser, the stock one first; no others, as a subclass may compute more.
    ``supports``: a line saying why this denoiser cannot be searched, or None if it can.
    ``fits``: a line saying why this denoiser does not go with its pipeline, or None if it does.
    ``block_names``: denoiser -> paths of its blocks, in the order in which they run.
    ``streams``: denoiser -> the ports of every module on a stream, by path: what one of them writes
    has one meaning per channel, so that the same channels can be left out wherever it is read;
    None where they are kept as they are.
    ``sample_shape``: denoiser -> (C, H, W) of what it denoises, pixels or latents.
    ``class_count``: denoiser -> how many classes it takes, None if none.
    ``example_condition``: (denoiser, batch size, device) -> a condition of zeros, as large as real
    ones; the rows of an image with a hole are in it if the denoiser is shown one.
    ``inputs``: (denoiser, noisy (B, C, H, W), timesteps (B,) or (), condition) -> keyword arguments
    of a call.
    ``prediction``: (the denoiser's output, (H, W) of what it was given) -> the predicted tensor;
    channels beyond the target's are a learned variance.
    ``beside``: further components that its pipelines may have, and that are kept as they are.
    ``needed``: blocks with a module that is used from outside of them, and so cannot be left out.
    ``outside``: those modules. In a supernet they stay the teacher's, as no block loss sees what
    else they do.
    ``captions``: (pipeline, captions) -> their condition, if conditions are texts.
    ``encoders``: denoiser -> the components that captions go through; others may be missing.
    ``nothing``: pipeline -> the condition (1, ...) that stands for none, if there is one: with it
    sampling can be guided. What is shown has none.
    ``distilled``: pipeline -> whether it was distilled, with guidance or to few steps: it is not
    guided by what it makes of nothing, and predicts what its own teacher did, not its data.
    ``pipelines``: names of the classes of its pipelines, where others do something else with such
    a denoiser.
    ``shared``: names of inputs that are of no image, but the same for all, such as positions.
    ``mu``: (denoiser, its scheduler's config, number of steps) -> how far the scheduler shifts the
    noise, where that may follow the size of the image.
    ``sides``: denoiser -> heights and widths that it takes, in pixels or latents; None if it is for
    its own size alone.
    ``sized``: (condition, (H, W) of images) -> the condition for that size, where it tells one.
    ``square``: latents along each side of what is one pixel to the denoiser.
    ``levels``: where its pipelines start their steps, if they do not leave that to the scheduler.
    """

    name: str
    component: str
    classes: tuple[type[nn.Module], ...]
    supports: Callable[[Any], str | None]
    block_names: Callable[[nn.Module], list[str]]
    sample_shape: Callable[[nn.Module], tuple[int, int, int]]
    example_condition: Callable[[nn.Module, int, torch.device], Condition]
    inputs: Callable[[nn.Module, Tensor, Tensor, Condition], dict[str, Any]]
    fits: Callable[[Any], str | None] = lambda _: None
    prediction: Callable[[Any, Size], Tensor] = lambda output, _: output.sample
    streams: Callable[[nn.Module], dict[str, Ports]] | None = None
    class_count: Callable[[nn.Module], int | None] = lambda _: None
    beside: tuple[str, ...] = ()
    needed: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()
    captions: Callable[[Any, list[str]], Condition] | None = None
    encoders: Callable[[nn.Module], tuple[str, ...]] = lambda _: ("text_encoder", "tokenizer")
    nothing: Callable[[Any], Condition] | None = None
    distilled: Callable[[Any], bool] = lambda _: False
    pipelines: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    mu: Callable[[nn.Module, Mapping[str, Any], int], float] | None = None
    sides: Callable[[nn.Module], range] | None = None
    sized: Callable[[Condition, Size], Condition] | None = None
    square: int = 1
    levels: Levels | None = None

    @property
    def takes_texts(self) -> bool:
        """Whether its models are told texts."""
        return self.captions is not None

    def scheduler(self, denoiser: nn.Module, given: Any, steps: int = STEPS) -> Any:
        """A pipeline's scheduler, with the shift that it has for so many steps at that size."""
        if self.mu is None or not follows_size(given.config):
            return given
        mu = self.mu(denoiser, given.config, steps)
        return type(given).from_config(at_size(given.config, mu))

    def example_inputs(
        self, denoiser: nn.Module, batch_size: int, device: torch.device
    ) -> dict[str, Any]:
        """Keyword arguments of one call on zeros."""
        noisy = torch.zeros(batch_size, *self.sample_shape(denoiser), device=device)
        timesteps = torch.zeros(batch_size, dtype=torch.long, device=device)
        condition = self.example_condition(denoiser, batch_size, device)
        return self.inputs(denoiser, noisy, timesteps, condition)
