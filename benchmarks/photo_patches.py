"""Make a folder of small colour images: crops of photographs that come with Python packages.

    python benchmarks/photo_patches.py --out runs/patches/images

Writes OUT/PART/PHOTOGRAPH-NUMBER.png, SIDE by SIDE pixels, the same files every time. Every
photograph is cut into upright strips, which share no pixel; a part has one strip of each. Crops
overlap, so a split by file would hold out what was half seen: split by folder (`--set
data.split_by=folder`), which holds out one part. Whole photographs would be the stricter test, but
with eight of them, held-out ones show other things than the seen ones: a Fréchet distance of 1.19
between the two (16 pixels), against which the difference of a teacher and its student vanishes.

The photographs are those inside the wheels of scikit-image and scikit-learn; their licences are
in `skimage/data/README.txt` and `sklearn/datasets/images/README.txt`.
"""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

STRIPS = 5
SHRINK = (2, 4)  # at full resolution a crop this small is mostly a plain surface
PHOTOGRAPHS = {
    "skimage": (
        "data/astronaut.png",
        "data/chelsea.png",
        "data/coffee.png",
        "data/hubble_deep_field.jpg",
        "data/motorcycle_left.png",
        "data/rocket.jpg",
    ),
    "sklearn": ("datasets/images/china.jpg", "datasets/images/flower.jpg"),
}


def photographs() -> list[Path]:
    """Where the photographs lie."""
    found = []
    for package, names in PHOTOGRAPHS.items():
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            raise SystemExit(f"{package} is not installed; pip install -e '.[bench]'")
        found += [Path(spec.origin).parent / name for name in names]
    return found


def strips(photograph: Image.Image) -> list[Image.Image]:
    """Upright strips of equal width, from left to right."""
    edges = [round(part * photograph.width / STRIPS) for part in range(STRIPS + 1)]
    return [photograph.crop((left, 0, right, photograph.height)) for left, right in pairwise(edges)]


def crops(
    photograph: Image.Image, side: int, count: int, rng: np.random.Generator
) -> list[Image.Image]:
    """Crops at random places, as many of each reduction of the photograph that is large enough."""
    cut = []
    reduced = [photograph.reduce(shrink) for shrink in SHRINK]
    large_enough = [small for small in reduced if min(small.size) >= side]
    if not large_enough:
        raise SystemExit(f"--side {side}: larger than a strip of a photograph; lower it")
    for small in large_enough:
        for _ in range(count // len(large_enough)):
            left = int(rng.integers(small.width - side + 1))
            top = int(rng.integers(small.height - side + 1))
            cut.append(small.crop((left, top, left + side, top + side)))
    return cut


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=200, help="crops of each strip")
    parser.add_argument("--side", type=int, default=16, help="pixels")
    args = parser.parse_args()
    for number, file in enumerate(photographs()):
        rng = np.random.default_rng(number)
        for place, strip in enumerate(strips(Image.open(file).convert("RGB"))):
            folder = args.out / f"part-{(place + number) % STRIPS}"  # not all borders in one
            folder.mkdir(parents=True, exist_ok=True)
            for index, crop in enumerate(crops(strip, args.side, args.count, rng)):
                crop.save(folder / f"{file.stem}-{index:04}.png")
        print(f"{file.stem}: {STRIPS} strips of {args.count} crops")


if __name__ == "__main__":
    main()
