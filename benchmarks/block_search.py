"""How much of a block's true front the search inside a block finds, where the truth is known.

    diffnas compress digits --data digits --macs 0.5 --set score.by=block --until scores \
        --out runs/digits
    python benchmarks/block_search.py runs/digits

For every block of a run whose score table has all subnets: the search looks up losses in that
table, for a tenth of the block's subnets and several seeds. Measured: the hypervolume of the
subnets it found, in logarithm of loss and in MACs, both scaled to the block's range, as a share of
the whole table's. Beside it as many subnets at random. Writes benchmarks/results/block_search.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import numpy.typing as npt
from pymoo.indicators.hv import HV
from timing import RESULTS

from diffnas.architecture import BlockScores, BlockSpace, subnet_at
from diffnas.block_search import search
from diffnas.checkpoint import write_json
from diffnas.pareto import read_scores

SHARE = 0.1


def block_row(block: BlockSpace, table: BlockScores, seeds: int) -> dict[str, Any]:
    """Shares of the hypervolume, least and mean over seeds."""
    macs = np.array([block.cost_of(subnet_at(block, row)).macs for row in table.choices], float)
    logs = np.log(np.maximum(table.losses, 1e-12))
    points = np.stack([scaled(logs), scaled(macs)], axis=1)
    rows = {tuple(choice): row for row, choice in enumerate(table.choices)}
    count = max(1, int(SHARE * len(rows)))
    volume = HV(ref_point=np.ones(2))

    def share(found: npt.NDArray[Any]) -> float:
        return float(volume(points[found]) / volume(points))

    def at(choices: npt.NDArray[np.int16]) -> npt.NDArray[np.int64]:
        return np.array([rows[tuple(choice)] for choice in choices])

    searched, drawn = [], []
    for seed in range(seeds):
        found = search(
            [len(slot.options) for slot in block.slots],
            lambda choices: table.losses[at(choices)],
            lambda choices: macs[at(choices)],
            evaluations=count,
            seed=seed,
        )
        searched.append(share(at(found)))
        random = np.random.default_rng(seed)
        drawn.append(share(random.choice(len(rows), count, replace=False)))
    return {
        "subnets": len(rows),
        "evaluations": count,
        "search": {"least": min(searched), "mean": mean(searched)},
        "random": {"least": min(drawn), "mean": mean(drawn)},
    }


def scaled(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """To 0..1."""
    return (values - values.min()) / max(values.max() - values.min(), 1e-12)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    scores, *_ = read_scores(args.run)
    found = {}
    for block in scores.space.blocks:
        table = scores.blocks[block.name]
        if len(table.choices) == block.size:
            row = found[block.name] = block_row(block, table, args.seeds)
            print(
                f"{block.name}: {row['evaluations']} of {row['subnets']} subnets, "
                f"{row['search']['mean']:.3f} (least {row['search']['least']:.3f}) of the "
                f"hypervolume; at random {row['random']['mean']:.3f}"
            )
    if not found:
        parser.error(f"{args.run}: no block whose table is whole; was it with score.by=block?")
    write_json(args.results / "block_search.json", {"seeds": args.seeds, "blocks": found})


if __name__ == "__main__":
    main()
