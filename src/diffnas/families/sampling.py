"""The sampling loop.

Image i of a seed starts from noise that depends on (seed, i) alone, made on the CPU, and so does
the noise that stochastic samplers add: not on batch size, device or number of threads.
"""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from diffnas.errors import RunError
from diffnas.families.samplers import UNFIT, Levels, fresh_scheduler, refusal
from diffnas.parallel import thread_map, workers_for
from diffnas.rng import generator

Denoise = Callable[[Tensor, Tensor], Tensor]
"""(noisy images (B, C, H, W), timestep) -> the denoiser's prediction."""


def check_sampler(
    scheduler: Any,
    sampler: str,
    steps: int,
    device: torch.device,
    levels: Levels | None = None,
) -> None:
    """Take all steps with an image of one pixel and a model that predicts zeros.

    Some schedulers say only in a step that they do not take what the model predicts.

    Raises:
        UserError: the sampler is unknown, or does not fit the scheduler or the number of steps.
    """
    fresh = fresh_scheduler(scheduler, sampler, steps, device, levels)
    pixel = torch.zeros(1, 1, 1, 1, device=device)
    try:
        _denoise(
            fresh,
            lambda noisy, _: torch.zeros_like(noisy),
            pixel,
            [generator(0, "check", 0)],
        )
    except UNFIT as error:
        raise refusal(type(fresh), sampler, steps, error) from error


def sample_images(
    scheduler: Any,
    prepare: Callable[[Tensor], Denoise],
    shape: tuple[int, int, int],
    count: int,
    *,
    seed: int,
    sampler: str,
    steps: int,
    batch_size: int,
    device: torch.device,
    levels: Levels | None = None,
    decode: Callable[[Tensor], Tensor] | None = None,
    macs: Callable[[], float] = lambda: 0.0,
    progress: Callable[[int], None] | None = None,
) -> npt.NDArray[np.uint8]:
    """``count`` images, uint8 (count, C, H, W).

    ``scheduler``: the pipeline's own; it is left as it is. ``levels``: as in
    :func:`diffnas.families.samplers.fresh_scheduler`. ``prepare``: indices of a batch's images
    (B,) -> its denoising. ``shape``: of what is denoised, from which ``decode`` makes images if it
    is not yet. ``macs``: of denoising one image once, counted where it matters: small batches are
    made side by side, large ones one after the other. ``progress`` is called with the number of
    images made so far.

    Raises:
        UserError: the sampler does not fit the scheduler.
        RunError: the denoiser gave values that are not finite.
    """

    def run(indices: Tensor) -> npt.NDArray[np.uint8]:
        own = fresh_scheduler(scheduler, sampler, steps, device, levels)
        generators = [generator(seed, "sample", int(index)) for index in indices]
        noise = torch.stack([torch.randn(shape, generator=each) for each in generators])
        with torch.no_grad():
            images = _denoise(own, prepare(indices), noise.to(device), generators)
        return to_uint8(images if decode is None else decode(images))

    batches = list(torch.arange(count).split(batch_size))

    def report(done: int) -> None:
        if progress is not None:
            progress(min(done * batch_size, count))

    # A single batch has no other to run beside, so it gets all threads.
    workers = min(workers_for(device), len(batches))
    if workers > 1:
        workers = min(workers, workers_for(device, macs() * min(batch_size, count)))
    return np.concatenate(thread_map(run, batches, workers, report))


def _denoise(
    scheduler: Any,
    predict: Denoise,
    noise: Tensor,
    generators: list[torch.Generator],
) -> Tensor:
    # A flow's scheduler has neither: its noise is 1, its input as it is.
    images = noise * getattr(scheduler, "init_noise_sigma", 1.0)
    scale = getattr(scheduler, "scale_model_input", lambda given, _: given)
    takes_generator = "generator" in inspect.signature(scheduler.step).parameters
    extra = {"generator": generators} if takes_generator else {}
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)  # of two equal timesteps it would begin at the second
    for timestep in scheduler.timesteps:
        prediction = predict(scale(images, timestep), _whole(timestep))
        images = scheduler.step(prediction, timestep, images, **extra).prev_sample
    return images


def _whole(timestep: Tensor) -> Tensor:
    """As an integer, as in training, where the scheduler's float is one."""
    return timestep if timestep != timestep.round() else timestep.long()


def to_uint8(images: Tensor) -> npt.NDArray[np.uint8]:
    """Images nearly in [-1, 1] as levels.

    Raises:
        RunError: they are not finite.
    """
    if not bool(images.isfinite().all()):
        raise RunError("sampling gave values that are not finite; the denoiser has diverged")
    levels = ((images.float() + 1) * 127.5).round().clamp(0, 255)
    return levels.to(torch.uint8).cpu().numpy()
