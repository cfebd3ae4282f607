"""Make a folder of drawn shapes, captioned, in folders by class.

    python benchmarks/draw_shapes.py --out runs/shapes/images

Writes OUT/COLOUR SHAPE/NUMBER.png, 16 by 16 pixels, and OUT/metadata.jsonl with captions such as "a
small red circle on black": 96 captions, 16 classes, the same files every time. A program can tell
what an image shows (`shapes/verdict.py`), and so whether a model draws what it is asked for.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image
from shapes.drawing import WORDS, drawn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=80, help="images of each caption")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    lines = []
    for words in WORDS:
        folder = args.out / words.kind
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(args.count):
            file = folder / f"{words.size}-{words.background}-{number:03}.png"
            Image.fromarray(drawn(words, rng)).save(file)
            name = file.relative_to(args.out).as_posix()
            lines.append(json.dumps({"file_name": name, "text": words.caption}))
    (args.out / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(lines)} images, {len(WORDS)} captions")


if __name__ == "__main__":
    main()
