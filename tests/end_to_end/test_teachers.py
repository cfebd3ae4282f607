"""Whole runs on pipelines of other kinds than the digits', on pictures in folders."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    ConsistencyModelPipeline,
    DDIMPipeline,
    DDIMScheduler,
    DDPMScheduler,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    UNet2DModel,
    VQModel,
)

import diffnas
from diffnas.families import Teacher, unet2d
from diffnas.measure.cost import call_cost
from tests.end_to_end.elsewhere import made_elsewhere, samples_elsewhere
from tests.end_to_end.pictures import mixed_pictures, pictures
from tests.end_to_end.runs import compress
from tests.engine import assert_same
from tests.models import tiny_latent_pipeline, tiny_pipeline, tiny_unet

FOLDER = {"data__held_out": "0.5", "evaluate__samples": "100"}
"""Of 200 pictures, enough on each side for the 97 patch features."""

CPU = torch.device("cpu")


def student(run: Path) -> Path:
    """The pipeline folder of a run's only student."""
    (folder,) = (run / "students").iterdir()
    return folder / "pipeline"


def loaded(folder: Path, **settings: Any) -> Any:
    """The pipeline as diffusers loads it."""
    pipeline = DiffusionPipeline.from_pretrained(folder, **settings)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def public(config: Any) -> dict[str, Any]:
    """Without diffusers' own notes."""
    return {key: value for key, value in config.items() if not key.startswith("_")}


def assert_samples(pipeline: Any) -> None:
    """It makes finite images of its own size by its own scheduler."""
    images = pipeline(batch_size=2, num_inference_steps=3, output_type="np").images
    channels, height, width = Teacher("", pipeline, pipeline.unet, unet2d.FAMILY).image_shape
    assert images.shape == (2, height, width, channels)
    assert np.isfinite(images).all()


def assert_within(unet: UNet2DModel, teacher: UNet2DModel, **shares: float) -> None:
    """Costs, counted anew on both models, keep the shares; neither model is the other."""
    own, whole = (
        call_cost(model, kwargs=unet2d.FAMILY.example_inputs(model, 1, CPU))
        for model in (unet, teacher)
    )
    for kind, share in shares.items():
        assert getattr(own, kind) <= share * getattr(whole, kind)
    assert own.macs < whole.macs
    assert own.params == sum(parameter.numel() for parameter in unet.parameters())


def test_colours_velocities_and_three_levels_from_a_mixed_folder(tmp_path, capsys):
    unet = tiny_unet(
        sample_size=16,
        in_channels=3,
        out_channels=3,
        layers_per_block=2,
        block_out_channels=(8, 16, 16),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        add_attention=False,
    )
    scheduler = DDIMScheduler(
        prediction_type="v_prediction",
        beta_schedule="squaredcos_cap_v2",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
    )
    DDIMPipeline(unet=unet, scheduler=scheduler).save_pretrained(tmp_path / "teacher")
    data = mixed_pictures(tmp_path / "pictures")
    status = compress(
        tmp_path / "teacher",
        tmp_path / "run",
        "--macs",
        "0.7",
        "--params",
        "0.8",
        data=data,
        **FOLDER,
        evaluate__sampler="ddim",
        score__images="8",
        space__max_subnets="200",
    )
    told = capsys.readouterr().err
    assert status == 0, told
    assert "1 unreadable file skipped" in told
    pipeline = loaded(student(tmp_path / "run"), trust_remote_code=True)
    assert type(pipeline) is DDIMPipeline
    assert public(pipeline.scheduler.config) == public(scheduler.config)
    assert_samples(pipeline)
    assert_within(pipeline.unet, unet, macs=0.7, params=0.8)


def test_classes_from_folders_and_a_model_that_predicts_images(tmp_path, capsys):
    teacher = tiny_pipeline(
        scheduler=DDPMScheduler(prediction_type="sample"),
        in_channels=3,
        out_channels=3,
        num_class_embeds=3,
    )
    # Of diffusers' pipelines of pixels the one that hands classes on.
    ConsistencyModelPipeline(teacher.unet, teacher.scheduler).save_pretrained(tmp_path / "teacher")
    data = pictures(tmp_path / "pictures", folders=("ant", "bee/young", "cow"))
    settings = {"data": data, **FOLDER, "data__label_column": "class"}
    status = compress(tmp_path / "teacher", tmp_path / "run", "--macs", "0.6", **settings)
    assert status == 0, capsys.readouterr().err
    folder = student(tmp_path / "run")
    metrics = json.loads((folder.parent / "metrics.json").read_text())
    assert metrics["protocol"]["classes"] == "as in the held-out images"
    pipeline = loaded(folder, trust_remote_code=True)
    assert_within(pipeline.unet, teacher.unet, macs=0.6)
    asked = 'batch_size=3, class_labels=[0, 1, 2], num_inference_steps=3, output_type="np"'
    kind = made_elsewhere(folder.parent, f"pipeline({asked}).images", (3, 8, 8, 3))
    assert kind == "ConsistencyModelPipeline"
    noise = torch.randn(1, 3, 8, 8, generator=torch.manual_seed(0)).expand(3, -1, -1, -1)
    with torch.no_grad():
        images = pipeline.unet(noise, 500, class_labels=torch.arange(3)).sample
    assert images.isfinite().all()
    assert not torch.equal(images[0], images[1])
    assert not torch.equal(images[1], images[2])


@pytest.mark.parametrize("scheduler", [EulerDiscreteScheduler(), DPMSolverMultistepScheduler()])
def test_resampling_by_resnets_and_a_sampler_of_its_own(scheduler, tmp_path, capsys):
    teacher = tiny_pipeline(
        scheduler=scheduler,
        downsample_type="resnet",
        upsample_type="resnet",
        resnet_time_scale_shift="scale_shift",
    )
    teacher.save_pretrained(tmp_path / "teacher")
    data = pictures(tmp_path / "pictures")
    status = compress(
        tmp_path / "teacher",
        tmp_path / "run",
        "--params",
        "0.6",
        data=data,
        **FOLDER,
        evaluate__sampler="own",
        score__images="8",
        space__max_subnets="100",
    )
    assert status == 0, capsys.readouterr().err
    pipeline = loaded(student(tmp_path / "run"), trust_remote_code=True)
    assert type(pipeline.scheduler) is type(scheduler)
    assert_samples(pipeline)
    assert_within(pipeline.unet, teacher.unet, params=0.6)
    metrics = json.loads((student(tmp_path / "run").parent / "metrics.json").read_text())
    assert metrics["protocol"]["sampler"] == "own"


def test_without_images_the_teachers_own_samples_are_the_data(teacher, tmp_path, capsys):
    settings = {"data": "teacher", **FOLDER, "data__limit": "200"}
    assert compress(teacher, tmp_path / "run", "--macs", "0.6", **settings) == 0
    assert "draw 200" in capsys.readouterr().err
    assert_samples(loaded(student(tmp_path / "run"), trust_remote_code=True))
    metrics = json.loads((student(tmp_path / "run").parent / "metrics.json").read_text())
    assert metrics["protocol"]["reference"] == "teacher"
    # Other noise than the evaluation's: the teacher would else be measured against itself.
    assert metrics["teacher"]["frechet_distance"]["mean"] > 0.01


@pytest.mark.parametrize("coder", [VQModel, AutoencoderKL])
def test_latents_behind_an_autoencoder(coder, tmp_path, capsys):
    teacher = tiny_latent_pipeline(coder)
    teacher.save_pretrained(tmp_path / "teacher")
    data = pictures(tmp_path / "pictures")
    settings = {"data": data, **FOLDER}
    assert compress(tmp_path / "teacher", tmp_path / "run", "--macs", "0.6", **settings) == 0
    told = capsys.readouterr().err
    assert "encode 400" in told  # each picture as it is and mirrored
    pipeline = loaded(student(tmp_path / "run"), trust_remote_code=True)
    assert samples_elsewhere(student(tmp_path / "run").parent, "batch_size=2") == "LDMPipeline"
    assert_samples(pipeline)
    assert_within(pipeline.unet, teacher.unet, macs=0.6)
    assert_same(pipeline.vqvae.state_dict(), teacher.vqvae.state_dict())


def test_a_student_is_the_teacher_of_the_next_run(finished, tmp_path, capsys):
    first = student(finished)
    status = compress(first, tmp_path / "run", "--macs", "0.6")
    assert status == 0, capsys.readouterr().err
    pipeline = loaded(student(tmp_path / "run"), trust_remote_code=True)
    assert_samples(pipeline)
    before = diffnas.load(first).unet
    assert_within(pipeline.unet, before, macs=0.6)
    assert before.config.edits.keys() <= pipeline.unet.config.edits.keys()


def test_the_paper_space_searches_kernels_only(teacher, tmp_path, capsys):
    status = compress(teacher, tmp_path / "run", "--macs", "0.5", "--space", "paper")
    assert status == 0, capsys.readouterr().err
    pipeline = loaded(student(tmp_path / "run"), trust_remote_code=True)
    assert_samples(pipeline)
    assert_within(pipeline.unet, tiny_unet(), macs=0.5)
    kernels = {edit["kernel"] for edit in pipeline.unet.config.edits.values()}
    assert kernels
    assert kernels <= {1, 5}


WITHOUT_DIFFNAS = """
import sys
sys.modules["diffnas"] = None
from diffusers import DDPMPipeline
pipeline = DDPMPipeline.from_pretrained(sys.argv[1])
assert pipeline(batch_size=1, num_inference_steps=2, output_type="np").images.shape == (1, 8, 8, 1)
"""


def test_the_stock_space_needs_no_code_of_anyones(teacher, tmp_path, capsys):
    status = compress(teacher, tmp_path / "run", "--macs", "0.9", "--space", "stock")
    assert status == 0, capsys.readouterr().err
    folder = student(tmp_path / "run")
    assert not list(folder.rglob("*.py"))
    assert "trust_remote_code" not in (folder / "README.md").read_text()
    pipeline = loaded(folder)
    assert type(pipeline.unet) is UNet2DModel
    assert_samples(pipeline)
    assert_within(pipeline.unet, tiny_unet(), macs=0.9)
    subprocess.run([sys.executable, "-c", WITHOUT_DIFFNAS, str(folder)], check=True)


def test_a_stock_student_of_fewer_layers_is_retrained_beside_its_teachers_blocks(tmp_path, capsys):
    two = tmp_path / "two"
    tiny_pipeline(layers_per_block=2).save_pretrained(two)
    status = compress(two, tmp_path / "run", "--macs", "0.6", "--space", "stock")
    assert status == 0, capsys.readouterr().err
    pipeline = loaded(student(tmp_path / "run"))
    assert type(pipeline.unet) is UNet2DModel
    assert pipeline.unet.config.layers_per_block != 2
    assert_within(pipeline.unet, tiny_unet(layers_per_block=2), macs=0.6)
