"""The plain data that travels between stages. No torch here, so selection is pure and instant."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter

FORMAT = 1
"""Version of every JSON file written from here."""

TEACHER = "teacher"
"""Name of the option that keeps the teacher's own module."""

SUMS = ("macs", "params")
"""Costs that add up over slots and blocks, and are counted on paper."""

Floats = npt.NDArray[np.float64]

Choices = npt.NDArray[np.int16]
"""Option indices of subnets, (subnets, slots); of one alone, (slots,)."""

Edit = dict[str, Any]
"""How a module is changed, as :func:`diffnas.student.modeling.edit_module` reads it."""

Subnet = dict[str, str]
"""One option's name per slot of a block, by the slot's path inside the block; "" is the block."""


def joined(*parts: str) -> str:
    """A path through modules; an empty part stands for the module before it."""
    return ".".join(part for part in parts if part)


@dataclass(frozen=True)
class Cost:
    """What a module costs: parameters, and multiply-accumulates of one call at batch 1."""

    params: int = 0
    macs: int = 0
    macs_without_attention: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.params + other.params,
            self.macs + other.macs,
            self.macs_without_attention + other.macs_without_attention,
        )

    def __sub__(self, other: "Cost") -> "Cost":
        return Cost(
            self.params - other.params,
            self.macs - other.macs,
            self.macs_without_attention - other.macs_without_attention,
        )


@dataclass(frozen=True)
class Option:
    """A slot's choice. ``edit`` is None for the teacher's own module."""

    name: str
    edit: Edit | None
    cost: Cost


@dataclass(frozen=True)
class SlotSpace:
    """One searchable part of a block: its path inside the block, its kind, its options.

    Options run from the teacher's own (first) to the cheapest (last).
    """

    path: str
    kind: str
    options: tuple[Option, ...]

    def option(self, name: str) -> Option:
        """The option of that name."""
        return next(option for option in self.options if option.name == name)


@dataclass(frozen=True)
class BlockSpace:
    """A block of the denoiser and its slots, in the order in which they run.

    ``only``: the subnets there are, as option indices, the teacher's own first and the cheapest
    last; None where all combinations are. ``needs``: what each of them needs of things that blocks
    share, by the thing's name: blocks' subnets go together where they need the same. None where
    all do.
    """

    name: str
    cost: Cost
    slots: tuple[SlotSpace, ...]
    only: tuple[tuple[int, ...], ...] | None = None
    needs: tuple[dict[str, Any], ...] | None = None

    @property
    def size(self) -> int:
        """Number of subnets."""
        if self.only is not None:
            return len(self.only)
        return int(np.prod([len(slot.options) for slot in self.slots], dtype=object))

    def choices(self) -> Choices:
        """Option indices of all subnets, (subnets, slots), the teacher's own first."""
        rows = self.only or list(product(*(range(len(slot.options)) for slot in self.slots)))
        return np.array(rows, dtype=np.int16).reshape(len(rows), len(self.slots))

    @property
    def teacher(self) -> Subnet:
        """The subnet of the teacher's own options."""
        return {slot.path: slot.options[0].name for slot in self.slots}

    @property
    def smallest(self) -> Subnet:
        """The subnet of the options with fewest MACs; of equal ones, the last."""
        return self.least("macs")

    def least(self, metric: str) -> Subnet:
        """The subnet of the options with the least of a metric; of equal ones, the last."""
        return {
            slot.path: min(reversed(slot.options), key=lambda o: getattr(o.cost, metric)).name
            for slot in self.slots
        }

    def cost_of(self, subnet: Subnet) -> Cost:
        """Cost of the block with those options (additive over slots)."""
        total = self.cost
        for slot in self.slots:
            total = total + slot.option(subnet[slot.path]).cost - slot.options[0].cost
        return total


@dataclass(frozen=True)
class Space:
    """The blocks of a denoiser and the cost of the whole teacher (stem and head included).

    ``trunk``: how many norm groups the streams between layers keep, of how many; None for all.
    ``base``: cost of the denoiser with that trunk and the teacher's options.
    """

    teacher: Cost
    blocks: tuple[BlockSpace, ...]
    base: Cost
    trunk: tuple[int, int] | None = None

    @property
    def own(self) -> "Architecture":
        """The teacher's options everywhere; with the teacher's trunk it is the teacher."""
        return Architecture({block.name: block.teacher for block in self.blocks})

    def cost_of(self, architecture: "Architecture") -> Cost:
        """Cost of the whole denoiser with that architecture."""
        total = self.base
        for block in self.blocks:
            total = total + block.cost_of(architecture.blocks[block.name]) - block.cost
        return total


@dataclass(frozen=True)
class Architecture:
    """One subnet per block. Independent of weights; its JSON is meant to be read."""

    blocks: dict[str, Subnet]

    def edits(self, space: Space) -> dict[str, Edit]:
        """What is changed of the denoiser: its trunk at the path "", modules at theirs."""
        trunk: dict[str, Edit] = {}
        if space.trunk is not None:
            trunk[""] = {"kind": "trunk", "groups": space.trunk[0]}
        return trunk | self.slot_edits(space)

    def slot_edits(self, space: Space) -> dict[str, Edit]:
        """The changed modules inside blocks, by their full path."""
        return {
            joined(block.name, slot.path): edit
            for block in space.blocks
            for slot in block.slots
            if (edit := slot.option(self.blocks[block.name][slot.path]).edit) is not None
        }


@dataclass(frozen=True)
class BlockScores:
    """The scored subnets of one block.

    ``choices``: (subnets, slots) option indices; ``losses``: (subnets,) block losses;
    row 0 is the teacher's own subnet, whose loss is the block's benchmark.
    """

    choices: Choices
    losses: Floats


@dataclass(frozen=True)
class Scores:
    """The score table of the whole denoiser.

    ``seconds``: what it took, where that is known; ``search``: names what was searched and how,
    whatever the trunk; tables of one search can be compared.
    """

    space: Space
    blocks: dict[str, BlockScores]
    seconds: float = 0.0
    search: str = ""


def subnet_at(block: BlockSpace, choice: Sequence[int] | Choices) -> Subnet:
    """The subnet with those option indices."""
    return {
        slot.path: slot.options[int(i)].name for slot, i in zip(block.slots, choice, strict=True)
    }


def space_to_json(space: Space) -> dict[str, Any]:
    """Plain values from which :func:`space_from_json` makes the space again.

    With the teacher's own trunk, and of blocks that share nothing, they are what they were before
    there was another.
    """
    values = {"format": FORMAT, **asdict(space)}
    if space.trunk is None:
        del values["base"], values["trunk"]
    for block in values["blocks"]:
        if block["needs"] is None:
            del block["needs"]
    return values


def space_from_json(values: Mapping[str, Any]) -> Space:
    """The space from :func:`space_to_json`'s values."""
    return _SPACE.validate_python({"base": values["teacher"], **values})


_SPACE = TypeAdapter(Space)
