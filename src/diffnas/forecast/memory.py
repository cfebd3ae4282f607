"""Memory: what each stage holds on the device at its peak, counted on the meta device."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from diffnas import embeddings, latents
from diffnas.architecture import BlockSpace, Space
from diffnas.blocks import Call, capture, recorded, tensors
from diffnas.budget import Budget
from diffnas.defaults import evaluation_batch
from diffnas.families import Teacher, autoencoder
from diffnas.forecast.activations import saved_bytes, weight_bytes
from diffnas.forecast.largest import most_params, widest
from diffnas.forecast.ranking import ranking_bytes
from diffnas.measure.memory import activation_bytes, stored_bytes
from diffnas.measure.meta import FusedKernels, to_meta
from diffnas.parallel import workers_for
from diffnas.retrain import parts_of_batch
from diffnas.scores import plain_options
from diffnas.settings import Settings
from diffnas.student.edited import edited
from diffnas.supernet import BlockSupernet
from diffnas.supernet_training import groups

MOMENTS = {"adamw": 2, "muon": 1}
"""Of an optimizer, each as large as the weights; Muon leaves to AdamW only what is small."""


@dataclass(frozen=True)
class _Parts:
    """The teacher and its largest student on the meta device, and their calls of one image.

    ``calls``: the student's; ``taught``: the teacher's, the same where streams stay as they are.
    Bytes of weights: ``loaded``, the teacher's; ``trained``, the student's; ``supernets``, those of
    each block, and what its options hold beside it as plain modules, most of which are views;
    ``resting``, of the pipeline's other parts what is on the device's side though not in use;
    ``near``, the same in a training, with what it uses itself. ``rests``: whether the device is
    another than the CPU, so that blocks' supernets and the narrowed teacher are on it only while
    they are used.
    """

    meta: Any
    base: Any
    inputs: dict[str, Any]
    calls: dict[str, Call]
    taught: dict[str, Call]
    loaded: int
    trained: int
    supernets: dict[str, tuple[int, int]]
    resting: int
    near: int
    rests: bool


def stage_bytes(
    teacher: Teacher,
    space: Space,
    settings: Settings,
    device: torch.device,
    budget: Budget | None = None,
) -> dict[str, int | None]:
    """Bytes that each stage holds at its peak: weights, optimizer, activations.

    ``captions`` and ``encode``: what is encoded once, where the model is of texts or latents; None
    where no configs of text encoders are known. ``supernet``: its activations are those of its
    largest block, once per thread (a graph is freed before the next is made), beside the captured
    calls of all blocks that are trained together, those of the teacher's next pass included; or
    before it, the teacher's own graph, off which a narrower trunk is read.
    ``scores``: of block losses, and of errors at the output. ``retrain``: with gradient
    checkpointing a student keeps what goes between its layers, and one block's activations.
    ``evaluate``: of sampling; features are apart.

    A student's weights are taken to be the most that the budget allows, or those of the supernet;
    its activations are the supernet's. Half precision is taken to halve activations, not weights;
    but the frozen teacher's, where its own precision is asked for. Workspaces of libraries and what
    an allocator keeps are not included.
    """
    parts = _parts(teacher, space, settings, device, budget or Budget())
    found: dict[str, int | None] = {}
    if teacher.family.takes_texts:
        found["captions"] = _captions_bytes(parts, teacher)
    if teacher.coder is not None:
        size = torch.zeros(_at_once(teacher, latents.PART), *teacher.image_shape, device="meta")
        found["encode"] = (
            parts.loaded
            + max(parts.resting, weight_bytes(teacher.coder))
            + activation_bytes(teacher.coder.encoder, (size,))
        )
    supernet = _supernet_bytes(parts, space, settings, device)
    if space.trunk is not None:  # read off the teacher before there are supernets
        together = settings.supernet.batch_size
        assert together is not None
        ranking = ranking_bytes(teacher, parts.meta, space.teacher.macs, together)
        supernet = max(supernet, parts.near + parts.loaded + ranking)
    return {
        **found,
        "supernet": supernet,
        "scores": _scores_bytes(parts, space, settings, device),
        "retrain": _retrain_bytes(parts, space, settings, device),
        "evaluate": _evaluate_bytes(parts, teacher, space, settings, device),
    }


def _parts(
    teacher: Teacher, space: Space, settings: Settings, device: torch.device, budget: Budget
) -> _Parts:
    meta = to_meta(teacher.denoiser)
    base = edited(meta, widest(space), space)
    inputs = teacher.family.example_inputs(meta, 1, torch.device("meta"))
    names = [block.name for block in space.blocks]
    with FusedKernels():
        calls = capture(base, names, inputs)[1]
        taught = calls if space.trunk is None else capture(meta, names, inputs)[1]
    # What is not in use rests on the CPU.
    rests = device.type != "cpu"
    coding = 0 if teacher.coder is None else weight_bytes(teacher.coder)
    asleep = coding + sum(map(weight_bytes, teacher.text_encoders))
    resting = 0 if rests else asleep
    anew = teacher.inpaints or settings.data.augment == "digits"  # encoded at every step
    near = max(resting, coding if anew else 0)
    return _Parts(
        meta,
        base,
        inputs,
        calls,
        taught,
        loaded=weight_bytes(meta),
        trained=int(min(weight_bytes(base), 4 * most_params(space, budget))),
        supernets=_supernets(meta, space),
        resting=resting,
        near=near,
        rests=rests,
    )


def _supernets(meta: Any, space: Space) -> dict[str, tuple[int, int]]:
    """What :class:`_Parts` has of that name, counted on supernets without data."""
    own = meta if space.trunk is None else edited(meta, space.own, space)
    known: dict[str, tuple[int, int]] = {}  # many blocks of large models are alike
    found = {}
    for block in space.blocks:
        key = str(replace(block, name=""))
        if key not in known:
            net = BlockSupernet(own.get_submodule(block.name), block)
            plain = [each for options in plain_options(net).values() for each in options.values()]
            shared = stored_bytes(net.parameters())
            both = stored_bytes(nn.ModuleList([net, *plain]).parameters())
            known[key] = shared, both - shared
        found[block.name] = known[key]
    return found


def _captions_bytes(parts: _Parts, teacher: Teacher) -> int | None:
    """Text encoders are awake together, and work one after the other; None if one is unknown."""
    needed = teacher.family.encoders(teacher.denoiser)
    texts = [name for name in needed if name.startswith("text_encoder")]
    if any(getattr(teacher.pipeline, name, None) is None for name in texts):
        return None
    example = teacher.family.example_condition(parts.meta, 1, torch.device("meta"))
    longest = max(each.shape[1] for each in example.values() if each.ndim == 3)
    work = []
    for encoder in teacher.text_encoders:
        config: Any = encoder.config
        tokens = min(longest, getattr(config, "max_position_embeddings", longest))
        given = torch.zeros(embeddings.PART, tokens, dtype=torch.long, device="meta")
        # Most pipelines take states from between the layers.
        asked = {"input_ids": given, "output_hidden_states": True}
        work.append(activation_bytes(encoder, kwargs=asked))
    awake = sum(map(weight_bytes, teacher.text_encoders))
    return parts.loaded + max(parts.resting, awake) + max(work)


def _supernet_bytes(parts: _Parts, space: Space, settings: Settings, device: torch.device) -> int:
    size, half = settings.supernet.batch_size, _half(settings)
    assert size is not None
    workers = workers_for(device, space.teacher.macs * size)
    graphs = _graphs(parts)

    def gradients(name: str) -> int:
        return parts.supernets[name][0]

    def of_group(group: list[str]) -> int:
        states = sum(map(gradients, group))
        cut = _call_bytes(parts.calls[name] for name in group)
        taught = _call_bytes(parts.taught[name] for name in group)
        taught += cut if space.trunk is not None else 0
        # A block's second graph stands beside the gradients of its first.
        trained = cut * size // half + workers * max(
            gradients(name) + graphs[name] * size // half for name in group
        )
        taught = taught * size // half
        most = trained + taught if workers > 1 else max(trained, taught)
        return _standing(parts, space, group) + MOMENTS["adamw"] * states + most

    return _taught_bytes(parts, settings, device) + max(
        of_group(group) for group in groups(space, settings.supernet.groups)
    )


def _scores_bytes(parts: _Parts, space: Space, settings: Settings, device: torch.device) -> int:
    """In single precision; one block at a time is used, its options as plain modules beside it."""
    size = settings.score.batch_size
    assert size is not None
    side_by_side = workers_for(device, space.teacher.macs * size)
    workers = min(side_by_side, -(-settings.score.images // size))
    taught = _call_bytes(parts.taught.values())
    cut = _call_bytes(parts.calls.values()) if space.trunk is not None else 0
    walked = max(_walk_bytes(parts, block) for block in space.blocks)
    options = max(beside for _, beside in parts.supernets.values())
    most = options + workers * size * (taught + cut + walked)
    if settings.scored.by == "output":
        passes = activation_bytes(parts.meta, kwargs=parts.inputs)
        most = max(most, size * (taught + cut + side_by_side * passes))
    standing = max(_standing(parts, space, [block.name]) for block in space.blocks)
    return standing + parts.loaded + most


def _walk_bytes(parts: _Parts, block: BlockSpace) -> int:
    """What is kept of a block's slots from one of its subnets to the next, and a pass."""
    call, module = parts.calls[block.name], parts.base.get_submodule(block.name)
    slots = [slot.path for slot in block.slots]
    with torch.no_grad(), FusedKernels(), recorded(module, slots) as calls:
        module(*call.args, **call.kwargs)
    kept = stored_bytes(tensors([each.output for each in calls.values()]))
    return kept + activation_bytes(module, call.args, call.kwargs)


def _retrain_bytes(parts: _Parts, space: Space, settings: Settings, device: torch.device) -> int:
    size = settings.retrain.batch_size
    assert size is not None
    workers = parts_of_batch(device, space.teacher.macs, size)
    held = _call_bytes(parts.taught.values())
    held += _call_bytes(parts.calls.values()) if space.trunk is not None else 0
    if settings.retrain.gradient_checkpointing:
        parts.base.enable_gradient_checkpointing()
        held += max(_graphs(parts).values())
    held += saved_bytes(parts.base, (), parts.inputs)
    # Threads have gradients of their own, from which the sum is made. They come as activations go.
    gradients = (workers + 1 if workers > 1 else 1) * parts.trained
    return (
        parts.near
        + _taught_bytes(parts, settings, device)
        + _narrowed_bytes(parts, space)
        + (1 + MOMENTS[settings.retrain.optimizer] + 1) * parts.trained  # with the average
        + max(gradients, size * held // _half(settings))
    )


def _evaluate_bytes(
    parts: _Parts, teacher: Teacher, space: Space, settings: Settings, device: torch.device
) -> int:
    judged, (_, height, width) = settings.evaluate, teacher.image_shape
    size = min(judged.samples, evaluation_batch(judged, (height, width)))
    calls = teacher.calls(teacher.guidance(judged.guidance))
    macs = space.teacher.macs * size * calls
    workers = min(workers_for(device, macs), -(-judged.samples // size))
    most = size * calls * activation_bytes(parts.meta, kwargs=parts.inputs)
    near = parts.resting
    if (coder := teacher.coder) is not None:
        near = max(near, weight_bytes(coder))
        sample = autoencoder.plain_shape(coder, teacher.family.sample_shape(teacher.denoiser))
        made = torch.zeros(_at_once(teacher, size), *sample, device="meta")
        most = max(most, activation_bytes(coder.decoder, (made,)))
    narrowed = _narrowed_bytes(parts, space)
    return near + parts.loaded + parts.trained + narrowed + workers * most


def _standing(parts: _Parts, space: Space, names: Sequence[str]) -> int:
    """Weights that are there while these blocks' supernets are used, but for the teacher's."""
    if not parts.rests:
        names = [block.name for block in space.blocks]
    own = sum(parts.supernets[name][0] for name in names)
    return parts.near + _narrowed_bytes(parts, space) + own


def _taught_bytes(parts: _Parts, settings: Settings, device: torch.device) -> int:
    """Weights of the teacher while it teaches, and on the CPU as loaded, if that is the device."""
    if settings.teacher_precision == "fp32":
        return parts.loaded
    return parts.loaded // 2 + (parts.loaded if device.type == "cpu" else 0)


def _narrowed_bytes(parts: _Parts, space: Space) -> int:
    """Weights of the teacher with the space's trunk, from which supernet and student begin."""
    return 0 if space.trunk is None or parts.rests else 4 * space.base.params


def _half(settings: Settings) -> int:
    return 1 if settings.precision == "fp32" else 2


def _graphs(parts: _Parts) -> dict[str, int]:
    """Bytes of each block's activations for its backward pass."""
    return {
        name: saved_bytes(parts.base.get_submodule(name), call.args, call.kwargs)
        for name, call in parts.calls.items()
    }


def _call_bytes(calls: Iterable[Call]) -> int:
    """Of all tensors that were given and made; what one block hands to another counts once."""
    return stored_bytes(tensors([[call.args, call.kwargs, call.output] for call in calls]))


def _at_once(teacher: Teacher, count: int) -> int:
    """How many of so many images an autoencoder takes at once."""
    _, height, width = teacher.image_shape
    return min(count, max(1, autoencoder.PIXELS // (height * width)))
