"""Exported files give what PyTorch gives, at every batch size, for students of all kinds."""

import json

import numpy as np
import onnxruntime
import openvino
import pytest
import torch
from diffusers import AutoencoderKL

from diffnas import export as module
from diffnas.cli import main
from diffnas.export.onnx import load
from diffnas.families.loading import load_teacher
from tests.models import tiny_latent_pipeline, tiny_pipeline


@pytest.fixture(scope="module", autouse=True)
def few_rounds():
    """Nobody looks at these times."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SECONDS", 0.0)
        yield


@pytest.fixture(scope="module")
def exported(student, tmp_path_factory):
    out = tmp_path_factory.mktemp("onnx") / "small"
    assert main(["export", "onnx", str(student), str(out)]) == 0
    return out


def inputs(count, seed=0):
    random = np.random.default_rng(seed)
    sample = random.standard_normal((count, 1, 8, 8)).astype(np.float32)
    return {"sample": sample, "timestep": random.integers(1000, size=count)}


def by_pytorch(folder, given):
    with torch.no_grad():
        unet = load_teacher(str(folder)).denoiser
        return unet(**{k: torch.from_numpy(v) for k, v in given.items()}).sample.numpy()


@pytest.mark.parametrize("count", [1, 2, 70])  # diffusers upsamples batches from 64 on otherwise
def test_onnx_gives_what_pytorch_gives(student, exported, count):
    session = onnxruntime.InferenceSession(exported / "unet" / "model.onnx")
    given = inputs(count)
    (made,) = session.run(["out_sample"], given)
    np.testing.assert_allclose(made, by_pytorch(student, given), rtol=1e-4, atol=1e-5)


def test_beside_the_network_are_its_scheduler_and_what_was_compared(student, exported):
    assert {path.name for path in exported.iterdir()} == {"export.json", "scheduler", "unet"}
    said = json.loads((exported / "export.json").read_text())
    assert said["inputs"] == {"unet": ["sample", "timestep"]}
    assert 0 < said["parts"]["unet"]["difference"] < 1e-4
    own = json.loads((student / "scheduler" / "scheduler_config.json").read_text())
    kept = json.loads((exported / "scheduler" / "scheduler_config.json").read_text())
    assert kept == own


def test_openvino_gives_what_pytorch_gives(student, tmp_path, capsys):
    assert main(["export", "openvino", str(student), str(tmp_path / "small")]) == 0
    assert "unet/openvino_model.xml" in capsys.readouterr().out
    assert sorted(path.suffix for path in (tmp_path / "small" / "unet").iterdir()) == [
        ".bin",
        ".xml",
    ]
    file = tmp_path / "small" / "unet" / "openvino_model.xml"
    model = openvino.Core().compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    given = inputs(3)
    np.testing.assert_allclose(model(given)[0], by_pytorch(student, given), rtol=1e-4, atol=1e-5)


def test_classes_are_an_input(tmp_path):
    tiny_pipeline(num_class_embeds=4).save_pretrained(tmp_path / "classes")
    assert main(["export", "onnx", str(tmp_path / "classes"), str(tmp_path / "out")]) == 0
    run = load(tmp_path / "out" / "unet" / "model.onnx")
    given = inputs(2) | {"class_labels": np.array([1, 3])}
    expected = by_pytorch(tmp_path / "classes", given)
    np.testing.assert_allclose(run(given), expected, rtol=1e-4, atol=1e-5)


def test_a_decoder_of_latents_is_exported_too(tmp_path):
    pipeline = tiny_latent_pipeline(AutoencoderKL)
    pipeline.save_pretrained(tmp_path / "latent")
    assert main(["export", "onnx", str(tmp_path / "latent"), str(tmp_path / "out")]) == 0
    latents = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    made = load(tmp_path / "out" / "vae_decoder" / "model.onnx")({"latent_sample": latents})
    with torch.no_grad():
        images = pipeline.vqvae.eval().decode(torch.from_numpy(latents)).sample.numpy()
    np.testing.assert_allclose(made, images, rtol=1e-4, atol=1e-4)


def test_a_file_that_differs_from_pytorch_is_not_kept(student, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(module, "TOLERANCE", 0.0)
    assert main(["export", "onnx", str(student), str(tmp_path / "out")]) == 1
    assert "unet/model.onnx: differs from PyTorch by" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_an_earlier_export_is_replaced_and_nothing_else(student, exported, tmp_path, capsys):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "letter.txt").write_text("dear")
    assert main(["export", "onnx", str(student), str(theirs)]) == 2
    assert "is not an exported pipeline; name another" in capsys.readouterr().err
    assert (theirs / "letter.txt").read_text() == "dear"
    assert main(["export", "onnx", str(student), str(exported)]) == 0


@pytest.mark.parametrize("name", ["mynote.txt", "unet/quantized.onnx"])
def test_a_file_beside_an_earlier_export_is_not_removed_with_it(student, exported, capsys, name):
    (exported / name).write_text("mine")
    try:
        assert main(["export", "onnx", str(student), str(exported)]) == 2
        assert f"{name} is not of the export that is there" in capsys.readouterr().err
        assert (exported / name).read_text() == "mine"
    finally:
        (exported / name).unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["tflite", "p", "o"], "FORMAT tflite: "),
        (["onnx", "no/such/folder", "o"], "model no/such/folder: no such folder"),
    ],
)
def test_mistakes_are_told_in_a_line(arguments, told, capsys):
    assert main(["export", *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"diffnas: {told}")


def test_a_missing_package_names_its_extra(student, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    assert main(["export", "onnx", str(student), str(tmp_path / "out")]) == 2
    assert "install DiffNAS with its extra 'onnx'" in capsys.readouterr().err
