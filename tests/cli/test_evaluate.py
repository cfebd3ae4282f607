"""``diffnas evaluate`` with measuring itself replaced: what it is given and what it prints."""

import json
import tempfile
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from diffusers import DDPMScheduler
from PIL import Image

from diffnas.cli import main
from diffnas.cli.evaluate import names
from diffnas.data import decode
from diffnas.errors import UserError

ROW = {
    "params": 120_000,
    "macs": 17_300_000,
    "memory_bytes": 2**21,
    "latency_ms": None,
    "frechet_distance": {"mean": 0.8312, "std": 0.0213},
    "denoising_loss": 0.0421,
    "nearest_seen": 1.31,
}
PROTOCOL = {"sampler": "dpmsolver", "steps": 20, "seeds": [0, 1], "features": "digits"}


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Callable[..., SimpleNamespace]:
    """Replace loading and measuring.

    Pipelines named ``*large*`` make larger images, and those named ``*text*`` are of texts.
    """
    seen = SimpleNamespace(loaded=[], data=None, settings=None)

    def load_teacher(source: str, **how: Any) -> Any:
        seen.loaded.append((source, how))
        shape = (3, 64, 64) if "large" in source else (1, 8, 8)
        family = SimpleNamespace(
            takes_texts="text" in source, class_count=lambda _: None, levels=None
        )
        return SimpleNamespace(
            image_shape=shape,
            family=family,
            denoiser=None,
            guidance=lambda _: 1.0,
            scheduler_for=lambda _: DDPMScheduler(),
        )

    def evaluate(pipelines: Any, data: Any, settings: Any, *, progress: Any = None) -> Any:
        seen.data, seen.settings = data, settings
        return {"protocol": PROTOCOL, "rows": {name: ROW for name in pipelines}}

    monkeypatch.setattr("diffnas.families.loading.load_teacher", load_teacher)
    monkeypatch.setattr("diffnas.measure.evaluate.evaluate", evaluate)
    return seen


def test_prints_a_column_per_pipeline_and_the_protocol(capsys, measured, tmp_path):
    student = tmp_path / "students" / "macs-0.5" / "pipeline"
    student.mkdir(parents=True)
    assert main(["evaluate", "digits", str(student), "--data", "digits"]) == 0
    printed = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    assert lines[0] == "digits macs-0.5"
    assert "parameters 120 k 120 k" in lines
    assert "MACs 17.3 M 17.3 M" in lines
    assert "Fréchet distance, held-out images 0.831 ± 0.021 0.831 ± 0.021" in lines
    assert "denoising loss, held-out images 0.0421 0.0421" in lines
    assert lines[-1] == "sampler dpmsolver, steps 20, seeds 0 1, features digits"


def test_json_is_what_was_measured(capsys, measured):
    assert main(["evaluate", "me/a", "me/b", "--data", "digits", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "protocol": PROTOCOL,
        "rows": {"a": ROW, "b": ROW},
    }


def test_data_is_loaded_in_the_shape_of_the_pipelines_images(measured):
    assert main(["evaluate", "me/a", "--data", "digits", "--set", "data.held_out=0.5"]) == 0
    assert measured.data.images.shape[1:] == (1, 8, 8)
    assert len(measured.data.held_out) == pytest.approx(len(measured.data.images) / 2, rel=0.02)


@pytest.mark.parametrize(("other", "captioned"), [("me/b", False), ("me/text", True)])
def test_captions_are_loaded_if_a_pipeline_is_of_texts(measured, other, captioned):
    assert main(["evaluate", "me/a", other, "--data", "digits"]) == 0
    assert (measured.data.captions is not None) == captioned


def test_classes_are_refused_if_no_pipeline_takes_any(capsys, measured):
    assert main(["evaluate", "me/a", "--data", "digits", "--set", "data.label_column=kind"]) == 2
    assert "data.label_column = kind: the model takes no classes" in capsys.readouterr().err


def test_flags_and_settings_reach_the_protocol(measured):
    given = ["--batch-size", "7", "--set", "evaluate.samples=72", "--trust-remote-code"]
    assert main(["evaluate", "me/a", "--data", "digits", "--device", "cpu", *given]) == 0
    assert measured.settings.batch_size == 7
    assert measured.settings.samples == 72
    (_, how) = measured.loaded[0]
    assert how["trust_remote_code"] is True
    assert how["device"].type == "cpu"


def test_a_seed_is_that_of_the_samples(capsys, measured):
    assert main(["evaluate", "me/a", "--data", "digits", "--seed", "5"]) == 0
    assert measured.settings.seeds == (5,)
    assert main(["evaluate", "me/a", "--data", "digits", "--seed", "five"]) == 2
    assert capsys.readouterr().err.startswith("diffnas: --seed five: ")


def test_revision_and_variant_are_those_of_every_pipeline(measured):
    flags = ["--revision", "main", "--variant", "fp16"]
    assert main(["evaluate", "me/a", "me/b", "--data", "digits", *flags]) == 0
    assert [(how["revision"], how["variant"]) for _, how in measured.loaded] == [
        ("main", "fp16")
    ] * 2


def test_a_revision_is_that_of_pipelines_on_the_hub(capsys, measured, tmp_path):
    flags = ["--data", "digits", "--revision", "v1"]
    assert main(["evaluate", "me/model", str(tmp_path), *flags]) == 0
    assert [how["revision"] for _, how in measured.loaded] == ["v1", None]
    assert main(["evaluate", str(tmp_path), *flags]) == 0
    assert measured.loaded[-1][1]["revision"] == "v1"  # where it is refused


def test_a_variant_is_that_of_pipelines_that_have_it(measured, tmp_path):
    (tmp_path / "unet").mkdir()
    weights = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    weights.touch()
    flags = ["--data", "digits", "--variant", "fp16"]
    assert main(["evaluate", "me/model", str(tmp_path), *flags]) == 0
    assert [how["variant"] for _, how in measured.loaded] == ["fp16", None]
    assert main(["evaluate", str(tmp_path), *flags]) == 0
    assert measured.loaded[-1][1]["variant"] == "fp16"  # where it is refused
    weights.rename(weights.with_suffix(".fp16.safetensors"))
    assert main(["evaluate", str(tmp_path), *flags]) == 0
    assert measured.loaded[-1][1]["variant"] == "fp16"


def of_pictures(folder, count=196):
    """The command on a folder of so many: 196 are just enough if half of them are held out."""
    for index in range(count):
        Image.new("L", (8, 8)).save(folder / f"{index}.png")
    return main(["evaluate", "me/a", "--data", str(folder), "--set", "data.held_out=0.5"])


def test_unreadable_images_are_counted(capsys, measured, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    assert of_pictures(tmp_path) == 0
    assert "data: 1 unreadable file skipped" in capsys.readouterr().err


def test_decoding_is_shown(capsys, measured, tmp_path):
    assert of_pictures(tmp_path) == 0
    assert "decode of 196" in capsys.readouterr().err


@pytest.mark.parametrize(("error", "status"), [(None, 0), (UserError, 2), (KeyboardInterrupt, 130)])
def test_images_are_decoded_into_a_file_that_is_gone_at_the_end(
    measured, monkeypatch, tmp_path, error, status
):
    def measure(_: Any, data: Any, *__: Any, **___: Any) -> Any:
        assert isinstance(data.images, np.memmap)
        assert list(kept.glob("*/*.npy"))
        if error is not None:
            raise error
        return {"protocol": PROTOCOL, "rows": {}}

    kept, photos = tmp_path / "kept", tmp_path / "photos"
    kept.mkdir()
    photos.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(kept))
    monkeypatch.setattr(decode, "LARGE", 1)
    monkeypatch.setattr("diffnas.measure.evaluate.evaluate", measure)
    assert of_pictures(photos) == status
    assert not list(kept.iterdir())


def test_too_few_images_are_refused_before_they_are_decoded(capsys, measured, tmp_path):
    assert of_pictures(tmp_path, 194) == 2
    told = capsys.readouterr().err
    assert "data.held_out holds out 97 of the 194 images" in told
    assert told.count("\n") == 1


def test_too_few_samples_are_refused_before_images_are_decoded(capsys, measured, tmp_path):
    given = ["--data", str(tmp_path), "--set", "evaluate.samples=32"]
    assert main(["evaluate", "me/a", *given]) == 2
    assert "evaluate.samples = 32: too few" in capsys.readouterr().err


def test_a_sampler_that_cannot_do_is_refused_before_images_are_decoded(capsys, measured, tmp_path):
    given = ["--data", str(tmp_path), "--set", "evaluate.sampler_steps=5000"]
    assert main(["evaluate", "me/a", *given]) == 2
    assert "the model has 1000 timesteps" in capsys.readouterr().err


def test_pipelines_of_different_image_shapes_are_refused(capsys, measured):
    assert main(["evaluate", "me/small", "me/large", "--data", "digits"]) == 2
    told = capsys.readouterr().err
    assert "PIPELINE large: its images are 64 x 64, 3 channels" in told
    assert "those of small 8 x 8, 1 channel;" in told
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["digits"], ["digits"]),
        (["google/ddpm-cat-256"], ["ddpm-cat-256"]),
        (["/r/students/macs-0.5/pipeline"], ["macs-0.5"]),
        (["pipeline"], ["pipeline"]),
        (
            ["/a/students/macs-0.5/pipeline", "/b/students/macs-0.5/pipeline"],
            ["a/students/macs-0.5", "b/students/macs-0.5"],
        ),
        (["one/cat", "two/cat", "dog"], ["one/cat", "two/cat", "dog"]),
        (["cat", "one/cat"], ["cat", "one/cat"]),
        (["cat/", "cat"], ["cat", "cat (2)"]),
        (["a", "a", "a"], ["a", "a (2)", "a (3)"]),
        (["."], ["."]),
    ],
)
def test_names_are_short_and_tell_pipelines_apart(given, expected):
    assert names(given) == expected
