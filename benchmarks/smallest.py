"""The smallest student at par: what `--smallest` tries and what it finds, as a table.

    python benchmarks/smallest.py digits --data digits --out runs/smallest \
        --set retrain.optimizer=muon --set retrain.steps=4000

One training seed, judged over the sampling seeds against the teacher alone, as the command does
(`par.py` judges over several, beside controls). Writes benchmarks/results/NAME.json. Resumable.
"""

from __future__ import annotations

import json

from points import row
from protocol import arguments, assignments

from diffnas import settings as all_settings
from diffnas.checkpoint import write_json
from diffnas.cli.progress import show_progress
from diffnas.run import Student
from diffnas.smallest import compress_smallest


def main() -> None:
    args = arguments(__doc__, "smallest").parse_args()
    given = all_settings.load(None, tuple(assignments(args)))
    with show_progress() as progress:
        compress_smallest(
            args.teacher, data=args.data, out=args.out, settings=given, progress=progress
        )
    rows = {}
    for share, verdict in json.loads((args.out / "smallest.json").read_text())["tried"].items():
        student = Student(args.out / "students" / f"macs-{share}")
        made = json.loads((student.path / "student.json").read_text())
        found = row({"retrain_seconds": made["seconds"], **student.metrics()})
        rows[share] = {**found, **verdict}
        print(f"{share}: " + ", ".join(f"{key} {value}" for key, value in rows[share].items()))
    report = {"teacher_name": args.teacher, "settings": assignments(args), "rows": rows}
    write_json(args.results / f"{args.name}.json", report)


if __name__ == "__main__":
    main()
