"""The search space of a teacher: its blocks, their slots, every option's cost. Needs no weights."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
from torch import nn

from diffnas import slots
from diffnas.architecture import BlockSpace, Cost, Option, SlotSpace, Space, joined
from diffnas.blocks import Call, capture, tensors
from diffnas.errors import UserError
from diffnas.families import Family
from diffnas.measure.cost import call_cost
from diffnas.measure.meta import FusedKernels, to_meta
from diffnas.settings import SpaceSettings
from diffnas.slots.upsampler import FOLDED
from diffnas.student.modeling import edit_module, layers_on_streams, narrow_trunk, trunk_groups
from diffnas.student.needs import needs
from diffnas.student.stock import STOCK, stock_class
from diffnas.ties import sharing, smallest

Known = dict[str, list[Option]]
"""Options that were counted already, by module, inputs and edits, in words."""


def make_space(denoiser: nn.Module, family: Family, settings: SpaceSettings) -> Space:
    """The space, with costs counted on the meta device at the shapes of a call at batch 1.

    Its trunk is the teacher's unless ``settings.trunk`` is a share
    (:func:`diffnas.trunk_width.space_for` fills it in).

    Raises:
        UserError: a stock space is asked for, of a denoiser or with a trunk that no stock config
            can express; the trunk does not divide; a pattern of ``include`` or ``exclude`` fits no
            slot.
    """
    meta = to_meta(denoiser)
    config: Any = meta.config
    if settings.preset == "stock" and stock_class(meta) not in STOCK:
        raise UserError(f"space.preset = 'stock': not for {stock_class(meta).__name__}; use 'full'")
    if settings.preset == "stock" and config.get("edits"):
        raise UserError(
            "space.preset = 'stock': this model is itself a student that no stock config can "
            "express; use 'full'"
        )
    inputs = family.example_inputs(meta, 1, torch.device("meta"))
    teacher = base = call_cost(meta, kwargs=inputs)
    trunk = _trunk(meta, family, settings)
    if trunk is not None:
        meta = copy.deepcopy(meta)  # it may be the one that was given
        try:
            narrow_trunk(meta, *trunk)
            _check_widths(meta, settings.multiple_of)
            base = call_cost(meta, kwargs=inputs)
        except (ValueError, RuntimeError) as error:  # the latter where layers are of other kinds
            reason = str(error) if isinstance(error, ValueError) else "not with this model's layers"
            raise UserError(
                f"space.trunk = {settings.trunk:g}: {reason}; use 1, or a share that divides"
            ) from None
    names = family.block_names(meta)
    found = _wanted(
        {
            joined(name, path): kind
            for name in names
            for path, _, kind in slots.find(meta.get_submodule(name))
        },
        settings,
    )
    with FusedKernels():
        _, calls = capture(meta, [*dict.fromkeys([*names, *found])], inputs)  # as executed
    known: Known = {}
    blocks = [
        _block(meta, name, calls, found, settings, whole=base, needed=family.needed, known=known)
        for name in names
    ]
    if settings.preset == "stock":
        blocks = sharing([_stock(block, config) for block in blocks])
    return Space(teacher, tuple(blocks), base, trunk)


def trunk_size(denoiser: nn.Module, family: Family) -> int:
    """Norm groups of the streams; 1 where they can only be kept as they are."""
    return 1 if family.streams is None else trunk_groups(denoiser)


def _trunk(denoiser: nn.Module, family: Family, settings: SpaceSettings) -> tuple[int, int] | None:
    """Norm groups that the streams keep, of how many; None for all there are."""
    of = trunk_size(denoiser, family)
    if family.streams is None and settings.trunk not in (None, 1.0):
        raise UserError(
            f"space.trunk = {settings.trunk:g}: not for {type(denoiser).__name__}; leave it out"
        )
    groups = max(1, round(of * settings.trunk)) if settings.trunk is not None else of
    if groups == of:
        return None
    if settings.preset == "stock":
        raise UserError(
            f"space.trunk = {settings.trunk:g}: a stock config cannot express it; use 1, or the "
            "preset 'full'"
        )
    return groups, of


def _check_widths(denoiser: nn.Module, multiple_of: int) -> None:
    """Raise ValueError for a stream whose channels are no multiple."""
    for _, _, layer, _, _ in layers_on_streams(denoiser):
        if isinstance(layer, nn.GroupNorm) and layer.num_channels % multiple_of:
            raise ValueError(
                f"{layer.num_channels} channels are no multiple of space.multiple_of = "
                f"{multiple_of}"
            )


def _wanted(found: dict[str, Any], settings: SpaceSettings) -> dict[str, Any]:
    """The slots whose paths fit a pattern to include and none to exclude."""
    for setting in ("include", "exclude"):
        for pattern in getattr(settings, setting):
            if found and not any(fnmatchcase(path, pattern) for path in found):
                raise UserError(
                    f"space.{setting}: {pattern!r} fits no slot; slots are called "
                    f"{next(iter(found))!r} to {list(found)[-1]!r}, and '*' stands for any part"
                )
    return {
        path: kind
        for path, kind in found.items()
        if any(fnmatchcase(path, pattern) for pattern in settings.include)
        and not any(fnmatchcase(path, pattern) for pattern in settings.exclude)
    }


def _block(
    meta: nn.Module,
    name: str,
    calls: Mapping[str, Call],
    found: Mapping[str, Any],
    settings: SpaceSettings,
    *,
    whole: Cost,
    needed: tuple[str, ...],
    known: Known,
) -> BlockSpace:
    called = calls[name]
    spaces = []
    for path in calls:
        if path in found and f"{path}.".startswith(f"{name}."):
            module = meta.get_submodule(path)
            options = _options(module, found[path], calls[path], settings, known)
            if path in needed:
                options = [option for option in options if option.name != "skip"]
            # A lone convolution of little cost is not worth the subnets it multiplies.
            light = options[0].cost.macs < settings.conv_min_share * whole.macs
            if len(options) > 1 and not (found[path] in (slots.conv, slots.upsampler) and light):
                spaces.append(
                    SlotSpace(
                        path.removeprefix(name).removeprefix("."), found[path].KIND, tuple(options)
                    )
                )
    cost = call_cost(meta.get_submodule(name), called.args, called.kwargs)
    if settings.preset == "stock":
        return BlockSpace(name, cost, tuple(spaces))
    return BlockSpace(name, cost, tuple(thin(spaces, settings.max_subnets)))


def _stock(block: BlockSpace, config: Mapping[str, Any]) -> BlockSpace:
    """The block with those of its subnets alone that a stock config can express, and their needs.

    Options and slots that none of them has are left out.
    """
    found = {}
    for choice in block.choices():
        options = [slot.options[i] for slot, i in zip(block.slots, choice, strict=True)]
        edits = {
            slot.path: option.edit
            for slot, option in zip(block.slots, options, strict=True)
            if option.edit is not None
        }
        if (needed := needs(config, block.name, edits)) is not None:
            found[tuple(int(i) for i in choice)] = needed
    choices = np.array(list(found), dtype=np.int16).reshape(len(found), len(block.slots))
    searched = [column for column in range(len(block.slots)) if choices[:, column].any()]
    slots_left, columns = [], []
    for column in searched:
        slot = block.slots[column]
        used, places = np.unique(choices[:, column], return_inverse=True)
        slots_left.append(replace(slot, options=tuple(slot.options[int(i)] for i in used)))
        columns.append(places)
    return replace(
        block,
        slots=tuple(slots_left),
        only=tuple(tuple(int(column[row]) for column in columns) for row in range(len(choices))),
        needs=tuple(found.values()),
    )


def _options(
    module: nn.Module, kind: Any, call: Call, settings: SpaceSettings, known: Known
) -> list[Option]:
    edits = dict(kind.edits(module, settings))
    # Large models have few kinds of layers, many times each.
    shapes = [tuple(tensor.shape) for tensor in tensors((call.args, call.kwargs))]
    key = f"{module} {shapes} {edits}"
    if key not in known:
        known[key] = _counted(module, edits, call)
    return known[key]


def _counted(
    module: nn.Module, edits: Mapping[str, dict[str, Any] | None], call: Call
) -> list[Option]:
    def cost(edit: dict[str, Any] | None) -> Cost:
        plain = module if edit is None else edit_module(module, edit)
        return call_cost(plain, call.args, call.kwargs)

    own, *others = (Option(name, edit, cost(edit)) for name, edit in edits.items())
    # A low rank can cost more than the convolution it replaces; 5x5 kernels are asked for by name.
    whole = min(each.cost.macs for each in (own, *others) if each.name in (own.name, FOLDED))
    useful = [
        option
        for option in others
        if option.edit is None or "rank" not in option.edit or option.cost.macs < whole
    ]
    return [own, *sorted(useful, key=lambda option: (-option.cost.macs, -option.cost.params))]


def thin(spaces: list[SlotSpace], limit: int) -> list[SlotSpace]:
    """Fewer options until the block has at most ``limit`` subnets.

    Whichever option of any slot is nearest in MACs to the next cheaper one goes first: its loss
    coarsens the space least; folded upsamplers, which give what the teacher's give, go last. When
    only the teacher's own and the cheapest are left everywhere, the slots that save least keep the
    teacher's module.
    """
    spaces = list(spaces)
    while BlockSpace("", Cost(), tuple(spaces)).size > limit:
        gaps = {
            (slot, index): (
                space.options[index].name == FOLDED,
                space.options[index].cost.macs - space.options[index + 1].cost.macs,
            )
            for slot, space in enumerate(spaces)
            for index in range(1, len(space.options) - 1)
        }
        if not gaps:
            spaces.remove(min(spaces, key=_saving))
            continue
        slot, index = min(gaps, key=lambda key: gaps[key])
        options = spaces[slot].options
        spaces[slot] = replace(spaces[slot], options=options[:index] + options[index + 1 :])
    return spaces


def _saving(slot: SlotSpace) -> int:
    return slot.options[0].cost.macs - slot.options[-1].cost.macs


def smallest_cost(space: Space, metric: str = "macs") -> Cost:
    """Cost of the architecture of least MACs, or least parameters."""
    return space.cost_of(smallest(space.blocks, metric))
