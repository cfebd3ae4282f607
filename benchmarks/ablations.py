"""What each part of the method is worth: one thing changed at a time, all else as it is.

    python benchmarks/ablations.py digits --data digits --macs 0.25 --steps 1200 --seeds 0 1 \
        --out runs/ablations
    python benchmarks/ablations.py ... --rows "as it is" "single path" --name ablations_paths

Rows that change the search have a supernet of their own, the others share one a seed; --rows splits
a long table. Writes benchmarks/results/NAME.json. Resumable.
"""

from __future__ import annotations

from recipes import compare, parser_of

ABLATIONS = {
    "as it is": [],
    # Selection: local against global, and what it goes by.
    "local rule": ["select.rule=local"],
    "block losses": ["score.by=block"],
    "block losses, local rule": ["score.by=block", "select.rule=local"],
    "random architecture": ["select.rule=random"],
    # The joint loss, and who feeds the blocks in it.
    "no block losses": ["retrain.schedule=none"],
    "static beta": ["retrain.schedule=static"],
    "linear beta": ["retrain.schedule=linear"],
    "step beta": ["retrain.schedule=step", "retrain.ramp=0.6"],  # half-way up the others' ramp
    "cosine beta over all steps": ["retrain.ramp=1"],
    "teacher-fed blocks": ["retrain.features=teacher"],
    "teacher's prediction": ["retrain.output_weight=0.25"],
    "no teacher's prediction": ["retrain.output_weight=0"],
    "no teacher at all": ["retrain.output_weight=0", "retrain.schedule=none"],
    "fresh weights": ["retrain.init=fresh"],
    # The supernet: its paths, its loss, its length.
    "single path": ["supernet.sandwich=false"],
    "block loss over Var(y)": ["supernet.block_loss=output"],
    "plain block loss": ["supernet.block_loss=plain"],
    "sums of plain block losses": ["supernet.block_loss=plain", "score.by=block"],
    "supernet of 250 steps": ["supernet.steps=250"],
    "supernet of 1000 steps": ["supernet.steps=1000"],
    "supernet of 4000 steps": ["supernet.steps=4000"],
    # The space.
    "wide streams": ["space.trunk=1"],
    "kernels only": ["space.preset=paper"],
}
"""Settings that differ from the defaults, by row."""


def main() -> None:
    parser = parser_of(__doc__, "ablations")
    parser.add_argument("--rows", nargs="+", choices=list(ABLATIONS), metavar="ROW")
    args = parser.parse_args()
    compare({name: ABLATIONS[name] for name in args.rows or ABLATIONS}, args)


if __name__ == "__main__":
    main()
