"""MACs of the score tables: of block losses, and of errors at the output."""

import numpy as np

from diffnas.architecture import BlockSpace, Space
from diffnas.scores import distinct, same_as
from diffnas.scoring import enumerated, subnets_scored
from diffnas.settings import ScoreSettings


def scoring_macs(space: Space, settings: ScoreSettings) -> float:
    """MACs of both tables, the teacher's passes that they are compared with included."""
    assert settings.batch_size is not None
    whole, images = float(space.teacher.macs), settings.images
    macs = images * whole
    for block in space.blocks:
        if enumerated(block, settings):
            macs += images * _walk(block)
        else:  # a search looks at the first part, in no order that would share much
            looked = subnets_scored(block, settings) * mean_macs(block)
            macs += (images + min(images, settings.batch_size)) * min(looked, _walk(block))
    return macs + (_output_errors(space, settings) if settings.by == "output" else 0.0)


def mean_macs(block: BlockSpace) -> float:
    """Of a uniformly random subnet of a block."""
    return _between(block) + sum(
        sum(option.cost.macs for option in slot.options) / len(slot.options) for slot in block.slots
    )


def _between(block: BlockSpace) -> float:
    """Of what lies between a block's slots."""
    return float(block.cost.macs - sum(slot.options[0].cost.macs for slot in block.slots))


def _walk(block: BlockSpace) -> float:
    """Of all subnets by the tree of prefixes, each node once (:mod:`diffnas.scores`).

    Of subnets that give the same, one is walked. What lies between slots is done for every subnet,
    or, in a block that ends in its last slot, once for all that differ in that slot alone: the
    former is counted.
    """
    if block.only is None:
        macs, nodes = 0.0, 1
        for slot in block.slots:
            apart = set(same_as(slot))
            macs += nodes * sum(float(slot.options[index].cost.macs) for index in apart)
            nodes *= len(apart)
        return macs + nodes * _between(block)
    rows, _ = distinct(block, block.choices())
    macs = len(rows) * _between(block)
    for depth, slot in enumerate(block.slots):
        new = np.diff(rows[:, : depth + 1], axis=0, prepend=-1).any(1)
        costs = np.array([float(option.cost.macs) for option in slot.options])
        macs += float(costs[rows[new, depth]].sum())
    return macs


def _output_errors(space: Space, settings: ScoreSettings) -> float:
    """Of the subnets that stand for a block, and of the teacher's blocks after it.

    The teacher's are taken to have the shares of its MACs that those of the narrower trunk have.
    """
    whole, known, macs = float(space.teacher.macs), 0.0, 0.0
    for block in space.blocks:
        known += block.cost.macs / space.base.macs
        passes = min(subnets_scored(block, settings), settings.candidates)
        macs += whole + passes * (mean_macs(block) + whole * (1 - known))
    return settings.output_images * macs
