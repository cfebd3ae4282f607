"""``diffnas sample``: a grid written whole or not at all."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffnas.cli import main


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Replace loading and sampling; what sampling was asked for."""
    seen: dict[str, Any] = {}

    def sample(_: Any, __: Any, count: int, **how: Any) -> np.ndarray:
        seen.update(count=count, **how)
        how["progress"](count)
        return np.zeros((count, 1, 8, 8), np.uint8)

    def load_teacher(source: str, **how: Any) -> Any:
        seen.update(source=source, **how)
        family = SimpleNamespace(sample=sample)
        return SimpleNamespace(pipeline=0, denoiser=0, family=family, image_shape=(1, 8, 8))

    monkeypatch.setattr("diffnas.families.loading.load_teacher", load_teacher)
    return seen


def test_a_grid_is_written_and_its_path_printed(capsys, asked, tmp_path):
    out = tmp_path / "grid.png"
    assert main(["sample", "a/pipeline", "--out", str(out), "--count", "9"]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    with Image.open(out) as image:
        assert image.size[0] >= 3 * 8
    assert [path.name for path in tmp_path.iterdir()] == ["grid.png"]


def test_flags_reach_the_sampler(asked, tmp_path):
    flags = ["--sampler", "ddim", "--steps", "7", "--seed", "5", "--variant", "fp16"]
    out = ["--out", str(tmp_path / "grid.png"), "--count", "4", "--device", "cpu"]
    assert main(["sample", "a/pipeline", *out, *flags]) == 0
    expected = {"count": 4, "sampler": "ddim", "steps": 7, "seed": 5, "variant": "fp16"}
    assert {key: asked[key] for key in expected} == expected


def test_an_older_grid_survives_a_failure(asked, tmp_path, monkeypatch):
    out = tmp_path / "grid.png"
    out.write_bytes(b"older")

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    assert main(["sample", "a/pipeline", "--out", str(out), "--count", "4"]) == 1
    assert out.read_bytes() == b"older"
    assert [path.name for path in tmp_path.iterdir()] == ["grid.png"]
