"""Whole runs on the kinds of pipelines that are told what to show, and their students elsewhere."""

import json
from pathlib import Path

import pytest
from diffusers import DiffusionPipeline, DPMSolverMultistepScheduler

from diffnas.cli import main
from tests.end_to_end.elsewhere import samples_elsewhere
from tests.end_to_end.pictures import captioned
from tests.end_to_end.runs import compress
from tests.models import (
    tiny_dit,
    tiny_flux,
    tiny_flux2,
    tiny_inpainting,
    tiny_pixart,
    tiny_pixart_alpha,
    tiny_refiner,
    tiny_sd3,
    tiny_stable_diffusion,
    tiny_xl,
    tiny_xl_inpainting,
)

FEW = {
    "data__held_out": "0.5",
    "evaluate__samples": "100",
    "space__max_subnets": "16",
    "score__candidates": "4",
    "score__output_images": "4",
}
"""Enough images on each side for the 97 patch features."""


def made(pipeline, folder: Path, *flags: str, data: Path | str, **settings: str) -> Path:
    """The only student's pipeline folder of a whole run."""
    pipeline.save_pretrained(folder / "teacher")
    chosen = FEW | settings
    assert compress(folder / "teacher", folder / "run", *flags, data=data, **chosen) == 0
    (student,) = (folder / "run" / "students").iterdir()
    return student


@pytest.mark.parametrize(
    ("pipeline", "kind", "crop"),
    [
        (lambda: tiny_stable_diffusion("v_prediction"), "StableDiffusionPipeline", "centre"),
        (tiny_xl, "StableDiffusionXLPipeline", "buckets"),
    ],
    ids=["stable diffusion", "xl"],
)
def test_models_of_texts_become_smaller_from_a_folder_with_captions(pipeline, kind, crop, tmp_path):
    data = captioned(tmp_path / "images", wide=crop == "buckets")
    student = made(pipeline(), tmp_path, "--macs", "0.6", data=data, data__crop=crop)
    wide = list((tmp_path / "run" / "data").glob("latents-*x*.npy"))
    assert [file.stem for file in wide] == (["latents-12x20"] if crop == "buckets" else [])
    assert samples_elsewhere(student, '["a disc", "none"]') == kind
    metrics = json.loads((student / "metrics.json").read_text())
    assert metrics["student"]["macs"] <= 0.6 * metrics["teacher"]["macs"]
    assert metrics["protocol"]["captions"] == "as in the held-out images"
    assert metrics["protocol"]["guidance"] in (5.0, 7.5)


def test_a_refiner_becomes_smaller(tmp_path):
    data = captioned(tmp_path / "images")
    student = made(tiny_refiner(), tmp_path, "--macs", "0.6", data=data)
    call = '["a disc", "none"], image=np.zeros((2, 16, 16, 3), "float32"), strength=1.0'
    assert samples_elsewhere(student, call) == "StableDiffusionXLImg2ImgPipeline"
    assert json.loads((student / "metrics.json").read_text())["protocol"]["guidance"] == 5.0


HOLE = (
    '["a disc", "none"], image=np.zeros((2, 16, 16, 3), "float32"), strength=1.0, '
    'mask_image=np.eye(16, dtype="float32")[None].repeat(2, 0)'
)
"""A call with grey images of which the diagonal is to be made."""


def test_a_model_that_fills_holes_becomes_smaller(tmp_path):
    data = captioned(tmp_path / "images")
    student = made(tiny_xl_inpainting(), tmp_path, "--macs", "0.6", data=data)
    assert samples_elsewhere(student, HOLE) == "StableDiffusionXLInpaintPipeline"
    metrics = json.loads((student / "metrics.json").read_text())
    assert metrics["student"]["macs"] <= 0.6 * metrics["teacher"]["macs"]
    assert "in held-out images" in metrics["protocol"]["holes"]


def test_a_model_that_fills_holes_has_no_samples_of_its_own(tmp_path, capsys):
    tiny_inpainting().save_pretrained(tmp_path / "teacher")
    assert compress(tmp_path / "teacher", tmp_path / "run", data="teacher", **FEW) == 2
    assert "data = teacher: the model fills holes" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    grid = ["sample", str(tmp_path / "teacher"), "--out", str(tmp_path / "grid.png")]
    assert main([*grid, "--count", "2", "--prompt", "a disc"]) == 2
    assert "it fills holes in images" in capsys.readouterr().err


def test_a_student_of_the_stock_space_brings_no_code(tmp_path):
    data = captioned(tmp_path / "images")
    teacher = tiny_stable_diffusion(layers_per_block=2)
    student = made(teacher, tmp_path, "--macs", "0.7", "--space", "stock", data=data)
    assert not list(student.rglob("*.py"))
    assert samples_elsewhere(student, '["a disc", "none"]') == "StableDiffusionPipeline"
    metrics = json.loads((student / "metrics.json").read_text())
    assert metrics["student"]["macs"] <= 0.7 * metrics["teacher"]["macs"]


def test_a_transformer_of_texts_becomes_smaller(tmp_path):
    data = captioned(tmp_path / "images")
    student = made(tiny_pixart(num_layers=2), tmp_path, "--macs", "0.6", data=data)
    call = '["a disc", "none"], use_resolution_binning=False'
    assert samples_elsewhere(student, call) == "PixArtSigmaPipeline"


def test_a_transformer_that_is_told_the_size_becomes_smaller(tmp_path):
    data = captioned(tmp_path / "images")
    student = made(tiny_pixart_alpha(num_layers=2), tmp_path, "--macs", "0.6", data=data)
    # Its pipeline tells the size only where this one is in the config.
    large = "pipeline.transformer.register_to_config(sample_size=128)"
    call = '["a disc"] * 2, height=16, width=16, use_resolution_binning=False'
    assert samples_elsewhere(student, call, first=large) == "PixArtAlphaPipeline"


def test_a_model_of_flows_becomes_smaller(tmp_path):
    data = captioned(tmp_path / "images")
    student = made(tiny_sd3(), tmp_path, "--macs", "0.6", data=data)
    assert samples_elsewhere(student, '["a disc", "none"]') == "StableDiffusion3Pipeline"


def test_a_model_of_flows_saved_with_its_solver_is_taken_again(tmp_path):
    pipeline = tiny_sd3()
    pipeline.scheduler = DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    pipeline.save_pretrained(tmp_path / "teacher")
    grid = ["sample", str(tmp_path / "teacher"), "--out", str(tmp_path / "grid.png")]
    assert main([*grid, "--prompt", "a disc", "--count", "2", "--steps", "2"]) == 0
    search = {**FEW, "data": captioned(tmp_path / "images")}
    assert compress(tmp_path / "teacher", tmp_path / "run", "--until", "supernet", **search) == 0


@pytest.mark.parametrize(
    ("pipeline", "guidance", "sampler"),
    [
        (tiny_flux, 3.5, "dpmsolver"),
        (lambda: tiny_flux(distilled=False, num_layers=1, num_single_layers=1), None, "own"),
    ],
    ids=["flux dev", "flux schnell"],
)
def test_a_distilled_model_becomes_smaller(pipeline, guidance, sampler, tmp_path):
    data = captioned(tmp_path / "images")
    settings = {"data": data, "evaluate__sampler": sampler}
    student = made(teacher := pipeline(), tmp_path, "--macs", "0.6", **settings)
    call = '["a disc"] * 2, height=16, width=16'
    assert samples_elsewhere(student, call) == type(teacher).__name__
    metrics = json.loads((student / "metrics.json").read_text())
    assert metrics["student"]["macs"] <= 0.6 * metrics["teacher"]["macs"]
    assert metrics["protocol"].get("guidance") == guidance
    retraining = json.loads((student / "student.json").read_text())["settings"]["retrain"]
    assert (retraining["task_weight"], retraining["output_weight"]) == (0, 1)


def test_a_model_of_latents_in_squares_becomes_smaller(tmp_path):
    data = captioned(tmp_path / "images")
    teacher = tiny_flux2(num_layers=1, num_single_layers=1)
    student = made(teacher, tmp_path, "--macs", "0.6", data=data)
    call = 'prompt=["a disc"] * 2, height=16, width=16'
    assert samples_elsewhere(student, call) == "Flux2KleinPipeline"
    metrics = json.loads((student / "metrics.json").read_text())
    assert metrics["student"]["macs"] <= 0.6 * metrics["teacher"]["macs"]
    assert metrics["protocol"]["guidance"] == 4.0


def test_a_model_of_texts_without_its_largest_encoder(tmp_path):
    pipeline = tiny_sd3()
    pipeline.register_modules(text_encoder_3=None, tokenizer_3=None)
    pipeline.save_pretrained(tmp_path)
    grid = ["sample", str(tmp_path), "--out", str(tmp_path / "grid.png"), "--prompt", "a disc"]
    assert main([*grid, "--count", "2", "--steps", "2"]) == 0


def test_a_transformer_of_classes_becomes_smaller(tmp_path):
    student = made(tiny_dit(), tmp_path, "--macs", "0.6", data="digits")
    assert samples_elsewhere(student, "[3, 7], guidance_scale=1.0") == "DiTPipeline"
    metrics = json.loads((student / "metrics.json").read_text())
    assert metrics["protocol"]["classes"] == "as in the held-out images"
    assert metrics["protocol"]["guidance"] == 4.0


def test_a_model_of_texts_needs_captions(tmp_path, capsys):
    tiny_stable_diffusion().save_pretrained(tmp_path / "teacher")
    (data := captioned(tmp_path / "images")).joinpath("metadata.jsonl").unlink()
    assert compress(tmp_path / "teacher", tmp_path / "run", data=data, **FEW) == 2
    assert "no captions" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_grid_of_a_prompt(tmp_path, capsys):
    tiny_stable_diffusion().save_pretrained(tmp_path / "teacher")
    grid = ["sample", str(tmp_path / "teacher"), "--out", str(tmp_path / "grid.png")]
    assert main([*grid, "--count", "4", "--steps", "2"]) == 2
    assert "--prompt" in capsys.readouterr().err
    assert main([*grid, "--count", "4", "--steps", "2", "--prompt", "a disc"]) == 0
    assert (tmp_path / "grid.png").exists()


def test_a_model_of_texts_makes_its_own_images_from_prompts(tmp_path, capsys):
    tiny_stable_diffusion().save_pretrained(tmp_path / "teacher")
    alone = {**FEW, "data": "teacher", "data__limit": "200", "evaluate__sampler_steps": "2"}
    assert compress(tmp_path / "teacher", tmp_path / "run", "--until", "plan", **alone) == 2
    assert "data.prompts" in capsys.readouterr().err
    (tmp_path / "prompts.txt").write_text("a disc\n\na square\n")
    told = {**alone, "data__prompts": str(tmp_path / "prompts.txt")}
    assert compress(tmp_path / "teacher", tmp_path / "run", "--until", "supernet", **told) == 0
    assert (tmp_path / "run" / "data" / "samples.npy").exists()


def test_a_students_names_of_classes_are_its_teachers(tmp_path):
    tiny_dit().save_pretrained(tmp_path / "teacher")
    index = tmp_path / "teacher" / "model_index.json"
    named = json.loads(index.read_text()) | {"id2label": {"0": "nought", "1": "one, unit"}}
    index.write_text(json.dumps(named))
    run = compress(tmp_path / "teacher", tmp_path / "run", "--macs", "0.6", **FEW)
    assert run == 0
    (student,) = (tmp_path / "run" / "students").iterdir()
    pipeline = DiffusionPipeline.from_pretrained(student / "pipeline", trust_remote_code=True)
    assert pipeline.labels == {"nought": 0, "one": 1, "unit": 1}
