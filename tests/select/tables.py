"""Score tables of made-up blocks."""

from itertools import product

import numpy as np

from diffnas.architecture import BlockScores, BlockSpace, Cost, Option, Scores, SlotSpace, Space


def block(name, *slots):
    """A block of slots, each a list of (MACs, parameters) per option, the teacher's own first."""
    spaces = tuple(
        SlotSpace(
            f"s{number}",
            "resnet",
            tuple(
                Option(
                    "teacher" if row == 0 else f"o{row}",
                    None if row == 0 else {"kind": "skip"},
                    Cost(params, macs, macs),
                )
                for row, (macs, params) in enumerate(options)
            ),
        )
        for number, options in enumerate(slots)
    )
    own = [space.options[0].cost for space in spaces]
    total = Cost(sum(c.params for c in own) + 3, sum(c.macs for c in own) + 5)
    return BlockSpace(name, total, spaces)


STEM = Cost(7, 11)


def scores(*blocks, losses=None, stem=STEM):
    """The score table of those blocks; random losses, where none are given, that grow with what
    is saved.
    """
    random = np.random.default_rng(0)
    total = stem
    tables = {}
    for space in blocks:
        total = total + space.cost
        choices = np.array(
            list(product(*(range(len(slot.options)) for slot in space.slots))), dtype=np.int16
        )
        made = 0.1 * np.exp(0.7 * choices.sum(1) + 0.3 * random.standard_normal(len(choices)))
        made[0] = 0.1
        given = (losses or {}).get(space.name)
        tables[space.name] = BlockScores(choices, made if given is None else np.array(given, float))
    return Scores(Space(total, blocks, total), tables)


def three_blocks(**arguments):
    """Three blocks of 16, 12 and 6 subnets, whose parameters and MACs go their own ways."""
    return scores(
        block("a", [(100, 20), (50, 15), (20, 10), (0, 0)], [(80, 5), (40, 2), (30, 1), (0, 0)]),
        block("b", [(60, 90), (30, 40), (0, 0)], [(50, 70), (30, 60), (10, 20), (0, 0)]),
        block("c", [(90, 30), (0, 0)], [(40, 200), (35, 50), (0, 0)]),
        **arguments,
    )
