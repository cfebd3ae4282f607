"""Memory: what each training holds at its peak, counted on the meta device."""

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from diffnas.architecture import Architecture, Option, Space
from diffnas.blocks import Call, capture, tensors
from diffnas.families import Teacher
from diffnas.measure.cost import to_meta
from diffnas.parallel import workers_for
from diffnas.settings import Settings
from diffnas.supernet_training import groups
from diffnas.timing import edited

ADAM_STATES = 4
"""Copies of a trained weight: itself, its gradient, two moments."""


def training_bytes(
    teacher: Teacher, space: Space, settings: Settings, device: torch.device
) -> dict[str, int]:
    """Bytes that each training holds at its peak: weights, optimizer, activations.

    The supernet's activations are those of its largest block, once per thread (a graph is freed
    before the next is made), beside the captured calls of all blocks that are trained together,
    those of the teacher's next pass included. With gradient checkpointing a student keeps what goes
    between its layers, and one block's activations. Half precision is taken to halve activations,
    not weights; but the frozen teacher's, where its own precision is asked for.
    """
    assert settings.supernet.batch_size is not None
    assert settings.retrain.batch_size is not None
    meta = to_meta(teacher.denoiser)
    base: Any = edited(meta, _widest(space), space)
    taught = 1 if settings.teacher_precision == "fp32" else 2
    weights, trained = weight_bytes(meta) // taught, weight_bytes(base)
    inputs = teacher.family.example_inputs(meta, 1, torch.device("meta"))
    names = [block.name for block in space.blocks]
    calls = capture(base, names, inputs)[1]
    graphs = {
        name: saved_bytes(base.get_submodule(name), call.args, call.kwargs)
        for name, call in calls.items()
    }
    captured = {name: _bytes_of(call) for name, call in calls.items()}
    if space.trunk is not None:  # what is cut from the teacher's calls stands beside them
        for name, call in capture(meta, names, inputs)[1].items():
            captured[name] += _bytes_of(call)
    coder = teacher.coder
    # Where it is not needed at every step it rests on the CPU.
    near = device.type == "cpu" or settings.data.augment == "digits"
    coding = weight_bytes(coder) if coder is not None and near else 0
    half = 1 if settings.precision == "fp32" else 2
    size, batch = settings.supernet.batch_size, settings.retrain.batch_size
    workers = workers_for(device, space.teacher.macs * size)

    def of_group(group: list[str]) -> int:
        states = sum(weight_bytes(base.get_submodule(name)) for name in group)
        states += _extra_bytes(space, group)
        held = sum(captured[name] for name in group) * (2 if workers > 1 else 1)
        graph = workers * max(graphs[name] for name in group)
        return (ADAM_STATES - 1) * states + size * (held + graph) // half

    again = 0
    if settings.retrain.gradient_checkpointing:
        base.enable_gradient_checkpointing()
        again = max(graphs.values())
    activations = sum(captured.values()) + saved_bytes(base, (), inputs) + again
    # Both trainings hold the frozen teacher. A student is at most as large as its supernet.
    return {
        "supernet": coding
        + weights
        + trained
        + _extra_bytes(space, names)
        + max(of_group(group) for group in groups(space, settings.supernet.groups)),
        "retrain": coding + weights + (ADAM_STATES + 1) * trained + batch * activations // half,
    }


def _widest(space: Space) -> Architecture:
    """The teacher's options but for ResNet layers that may be wider: what a supernet holds most."""
    return Architecture(
        {
            block.name: {
                slot.path: max(
                    (option for option in slot.options if not _apart(option)),
                    key=lambda option: option.cost.params,
                ).name
                for slot in block.slots
            }
            for block in space.blocks
        }
    )


def weight_bytes(module: nn.Module) -> int:
    """Of its parameters."""
    return sum(map(_bytes, module.parameters()))


def _bytes_of(call: Call) -> int:
    """Of all tensors that it was given and gave."""
    return sum(map(_bytes, tensors((call.args, call.kwargs, call.output))))


def saved_bytes(module: nn.Module, args: Any, kwargs: Any) -> int:
    """Bytes of activations that a forward pass keeps for its backward pass (weights left out)."""
    weights = {id(tensor) for tensor in module.parameters()}
    seen: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if id(tensor) not in weights and not isinstance(tensor, nn.Parameter):
            storage = tensor.untyped_storage()
            seen[storage._cdata] = storage.nbytes()
        kept.append(tensor)  # alive, so that no other storage takes its place
        return tensor

    kept: list[Tensor] = []
    trained = [parameter.requires_grad for parameter in module.parameters()]
    module.requires_grad_(True)
    try:
        with saved_tensors_hooks(pack, lambda tensor: tensor):
            module(*args, **kwargs)
    finally:
        for parameter, wanted in zip(module.parameters(), trained, strict=True):
            parameter.requires_grad_(wanted)
    return sum(seen.values())


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _extra_bytes(space: Space, names: Collection[str]) -> int:
    """Weights of these blocks' supernets beside those that a slot's options share."""
    blocks = [block for block in space.blocks if block.name in names]
    options = [option for block in blocks for slot in block.slots for option in slot.options]
    return 4 * sum(option.cost.params for option in options if _apart(option))


def _apart(option: Option) -> bool:
    """Whether it has weights of its own: another kernel, a low rank."""
    edit = option.edit or {}
    return "rank" in edit or edit.get("kernel", 3) != 3
