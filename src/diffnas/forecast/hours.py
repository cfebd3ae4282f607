"""Hours: MACs of each stage over the rate at which this device does such MACs.

The rate is timed on one forward pass of noise, with random weights where none are loaded.
"""

import torch
from torch import Tensor, nn

from diffnas.architecture import Space
from diffnas.blocks import Call, capture, map_tensors
from diffnas.budget import Budget
from diffnas.families import Teacher
from diffnas.families.autoencoder import coding_macs
from diffnas.forecast.activations import weight_bytes
from diffnas.forecast.scoring import mean_macs, scoring_macs
from diffnas.forecast.updates import PROBE_BYTES, update_macs, update_seconds
from diffnas.latents import VERSIONS
from diffnas.losses import beta
from diffnas.measure.cost import call_cost
from diffnas.measure.latency import latency_ms
from diffnas.measure.meta import FusedKernels, copied_to, to_meta
from diffnas.optimizer import autocast
from diffnas.parallel import single_threaded, workers_for
from diffnas.retrain import parts_of_batch
from diffnas.settings import RetrainSettings, Settings
from diffnas.space import smallest_cost
from diffnas.supernet_training import groups
from diffnas.trunk import IMAGES

BACKWARD = 2.0
"""A backward pass in forward passes: gradients of inputs and of weights."""

PROBE_MACS = 3e9
"""MACs of the pass that is timed: long enough to time, short enough to wait for."""

STEPS = 1000
"""Of a schedule, at which it is looked."""


def hours(
    teacher: Teacher,
    space: Space,
    budget: Budget,
    settings: Settings,
    device: torch.device,
    *,
    images: int | None = None,
) -> dict[str, float]:
    """Hours of each stage on this device, and their sum; other work on it is not foreseen.

    ``images``: as in :func:`stage_macs`.
    """
    rate = macs_per_second(teacher, space, settings, device)
    macs = stage_macs(teacher, space, budget, settings, images=images)
    found = {stage: value / rate / 3600 for stage, value in macs.items()}
    how, share = settings.retrain, student_share(space, budget)
    assert how.steps is not None
    assert how.batch_size is not None
    workers = parts_of_batch(device, space.teacher.macs, how.batch_size)
    updates = update_seconds(
        teacher.denoiser, how, share, rate=rate, device=device, workers=workers
    )
    counted = update_macs(teacher.denoiser, how, share) / rate
    found["retrain"] += how.steps * (updates - counted) / 3600
    return {**found, "total": sum(found.values())}


def stage_macs(
    teacher: Teacher,
    space: Space,
    budget: Budget,
    settings: Settings,
    *,
    images: int | None = None,
) -> dict[str, float]:
    """MACs of each stage, backward passes included.

    ``images``: to train on, for what encoding them takes where latents are denoised; None leaves
    that out.
    """
    assert settings.supernet.steps is not None
    assert settings.supernet.batch_size is not None
    assert settings.retrain.steps is not None
    assert settings.retrain.batch_size is not None
    whole = float(space.teacher.macs)
    random = sum(mean_macs(block) for block in space.blocks)
    blocks = float(sum(block.cost.macs for block in space.blocks))
    smallest = float(smallest_cost(space).macs) - (space.base.macs - blocks)
    ends = (blocks + smallest) / 2 if settings.supernet.sandwich else 0.0
    share = student_share(space, budget)
    student = share * whole
    trunk = 0.0 if space.trunk is None else IMAGES * (1 + BACKWARD) * whole
    parts = groups(space, settings.supernet.groups)
    again = 1 if settings.retrain.gradient_checkpointing else 0
    image_steps = (
        len(settings.evaluate.seeds) * settings.evaluate.samples * settings.evaluate.sampler_steps
    )
    image_steps *= teacher.calls(teacher.guidance(settings.evaluate.guidance))
    macs = {
        "supernet": trunk
        + settings.supernet.steps
        * settings.supernet.batch_size
        * (len(parts) * whole + (1 + BACKWARD) * (random + ends)),
        "scores": scoring_macs(space, settings.scored),
        "retrain": settings.retrain.steps
        * (
            settings.retrain.batch_size
            * (asked_share(settings.retrain) * whole + (1 + BACKWARD + again) * student)
            + update_macs(teacher.denoiser, settings.retrain, share)
        ),
        "evaluate": image_steps * (whole + student),
    }
    if (coder := teacher.coder) is not None:
        encoding, decoding = coding_macs(coder, teacher.family.sample_shape(teacher.denoiser))
        samples = 2 * len(settings.evaluate.seeds) * settings.evaluate.samples
        macs["evaluate"] += samples * (decoding + teacher.inpaints * encoding)
        bent = settings.data.augment == "digits"
        # Encoded at every step: images that are bent, and what is left of images around holes.
        for how in ("supernet", "retrain"):
            steps, size = getattr(settings, how).steps, getattr(settings, how).batch_size
            macs[how] += float(steps * size * (bent + teacher.inpaints) * encoding)
        if not bent and images is not None:
            versions = VERSIONS.get(settings.data.augment, max(VERSIONS.values()))
            count = images / (1 - settings.data.held_out)
            if settings.data.crop == "buckets":
                count += images  # at most: those of the model's own shape are encoded once
            macs = {"encode": versions * count * encoding, **macs}
    return macs


def student_share(space: Space, budget: Budget) -> float:
    """Share of the teacher's MACs that the student is as large as.

    What budgets of another kind leave is known only once one is chosen: half is assumed.
    """
    whole = float(space.teacher.macs)
    return 0.5 if budget.macs is None else min(budget.macs.of(whole) / whole, 1.0)


def asked_share(settings: RetrainSettings) -> float:
    """Share of retraining's steps in which the teacher is asked: for its prediction, its blocks."""
    if settings.output_weight != 0:
        return 1.0
    if settings.schedule == "none":
        return 0.0
    shares = (
        beta(settings.schedule, min(1.0, step / STEPS / settings.ramp)) for step in range(STEPS)
    )
    return sum(share < 1 for share in shares) / STEPS


def macs_per_second(
    teacher: Teacher, space: Space, settings: Settings, device: torch.device
) -> float:
    """How many MACs of this denoiser the device does in a second, in all its threads.

    One pass is timed: of the whole, or of one block of a model that is too large for that.
    """
    assert settings.supernet.batch_size is not None
    batch_size = settings.supernet.batch_size
    module, call, macs = _probe(teacher, space)
    size = int(min(batch_size, max(1, PROBE_MACS // macs)))

    random = torch.Generator(device).manual_seed(0)

    def noise(tensor: Tensor) -> Tensor:
        batched = tensor.ndim > 0 and len(tensor) == 1
        shape = (size, *tensor.shape[1:]) if batched else tensor.shape
        made = torch.zeros(shape, dtype=tensor.dtype, device=device)
        return made.uniform_(generator=random) if made.is_floating_point() else made

    probe, args, kwargs = (
        _random_weights(module, random),
        *map_tensors(noise, (call.args, call.kwargs)),
    )
    workers = workers_for(device, space.teacher.macs * batch_size)
    calls = {"pass": lambda: probe(*args, **kwargs)}
    with single_threaded(workers > 1), autocast(settings.precision, device):
        # One pass of a large model takes seconds: what is not yet warm about it does not count.
        small = macs < 10 * PROBE_MACS
        times = {"repeats": 3, "warmup": 1} if small else {"repeats": 1, "warmup": 0}
        seconds = latency_ms(calls, device=device, **times)["pass"] / 1e3
    return workers * size * macs / seconds


def _probe(teacher: Teacher, space: Space) -> tuple[nn.Module, Call, int]:
    """What is timed, its call at batch 1 and its MACs: the denoiser, or a block of a large one.

    Of the blocks that are not, the cheapest that takes long enough.
    """
    meta, family = to_meta(teacher.denoiser), teacher.family
    inputs = family.example_inputs(meta, 1, torch.device("meta"))
    if weight_bytes(meta) <= PROBE_BYTES:
        return teacher.denoiser, Call((), inputs, None), space.teacher.macs
    names = family.block_names(meta)
    with FusedKernels():
        _, calls = capture(meta, names, inputs)
    sizes = {name: weight_bytes(meta.get_submodule(name)) for name in names}
    small = [name for name in names if sizes[name] <= PROBE_BYTES] or [
        min(names, key=lambda name: sizes[name])
    ]
    macs = {
        name: call_cost(meta.get_submodule(name), calls[name].args, calls[name].kwargs).macs
        for name in small
    }
    long = [name for name in small if macs[name] >= PROBE_MACS] or [
        max(small, key=lambda name: macs[name])
    ]
    chosen = min(long, key=lambda name: macs[name])
    return teacher.denoiser.get_submodule(chosen), calls[chosen], macs[chosen]


def _random_weights(denoiser: nn.Module, random: torch.Generator) -> nn.Module:
    """A copy with small random weights, if it has none: GPUs may be faster with zeros."""
    if all(not tensor.is_meta for tensor in denoiser.parameters()):
        return denoiser
    empty = copied_to(denoiser, torch.device("meta")).to_empty(device=random.device)
    for buffer in empty.buffers():
        nn.init.zeros_(buffer)
    for parameter in empty.parameters():
        nn.init.uniform_(parameter, -0.02, 0.02, generator=random)
    return empty.eval()
