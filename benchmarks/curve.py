"""Quality against retraining steps, at several budgets of one supernet.

    python benchmarks/curve.py digits --data digits --out runs/curve
    python benchmarks/curve.py runs/patches/teacher --data runs/patches/images \
        --set data.split_by=folder --out runs/curve-patches --name curve_patches

One run folder: its supernet and scores serve all points, because a change of `retrain.steps` makes
the student alone again. Every point is a whole retraining of its own, with its own learning rate
schedule, not a stop on the way of a longer one. Points are kept in OUT/points as they are found, so
the same command goes on. Writes benchmarks/results/NAME.json and docs/NAME.svg.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from points import deviation, point, row
from protocol import COLUMNS, arguments, assignments, value
from trained import bench

from diffnas import settings as all_settings
from diffnas.budget import parse_budget
from diffnas.checkpoint import write_json
from diffnas.cli.progress import show_progress


def draw(report: dict[str, Any], file: Path) -> None:
    """One curve a budget, and the teacher's level."""
    # Only here: the measuring needs no extra package.
    import matplotlib as mpl
    from matplotlib import pyplot

    mpl.use("svg")
    mpl.rcParams |= {"svg.hashsalt": file.stem, "svg.fonttype": "none", "font.size": 11}
    figure, axes = pyplot.subplots(figsize=(6.4, 4.0), layout="constrained")
    for budget in sorted({each["budget"] for each in report["rows"]}, reverse=True):
        rows = [each for each in report["rows"] if each["budget"] == budget]
        axes.errorbar(
            [each["steps"] for each in rows],
            [each["frechet_distance"] for each in rows],
            yerr=[each["frechet_deviation"] or 0.0 for each in rows],
            marker="o",
            capsize=3,
            label=f"{budget:.0%} of the MACs",
        )
    axes.axhline(report["teacher"]["frechet_distance"], color="black", ls="--", label="teacher")
    steps = sorted({each["steps"] for each in report["rows"]})
    axes.set(xscale="log", xlabel="retraining steps")
    axes.set_ylabel("Fréchet distance to held-out images")
    axes.set_xticks(steps, [str(each) for each in steps], minor=False)
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, metadata={"Date": None})


def main() -> None:
    parser = arguments(__doc__, "curve")
    parser.add_argument("--macs", type=float, nargs="+", default=[0.5, 0.35, 0.25])
    parser.add_argument("--steps", type=int, nargs="+", default=[500, 1500, 4500])
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    args = parser.parse_args()
    if args.quick:
        args.macs, args.steps = args.macs[:2], [2, 4]
    common, rows = assignments(args), []
    origin = bench(args.teacher, args.data, all_settings.load(None, tuple(common))).origin
    with show_progress() as progress:
        for steps in sorted(args.steps):
            for macs in args.macs:
                found = point(
                    f"macs-{macs:g}-steps-{steps}",
                    [*common, f"retrain.steps={steps}"],
                    teacher=args.teacher,
                    data=args.data,
                    origin=origin,
                    budget=parse_budget(macs=macs),
                    out=args.out,
                    progress=progress,
                )
                rows.append({"budget": macs, "steps": steps, **row(found)})
    report = {
        "teacher_name": args.teacher,
        "settings": common,
        "protocol": found["protocol"],
        "teacher": {key: value(found["teacher"][key]) for key in COLUMNS}
        | {"frechet_deviation": deviation(found["teacher"])},
        "real": found["protocol"]["real_frechet_distance"],
        "rows": rows,
    }
    print(f"teacher {report['teacher']['frechet_distance']:.3f}")
    for each in rows:
        distance = f"{each['frechet_distance']:.3f}"
        print(f"{each['budget']:.0%} of the MACs, {each['steps']} steps: {distance}")
    write_json(args.results / f"{args.name}.json", report)
    draw(report, args.docs / f"{args.name}.svg")


if __name__ == "__main__":
    main()
