import shutil
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import (
    DDIMPipeline,
    DDPMPipeline,
    DDPMScheduler,
    LDMPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import load_file, save_file

from diffnas.families import Teacher, origin
from diffnas.families.loading import load_skeleton, load_teacher
from diffnas.student.modeling import DiffNASUNet2DModel
from tests.families.folders import WEIGHTS, edit_json, flatten, refused
from tests.families.kinds import KINDS, teacher
from tests.models import (
    tiny_condition_unet,
    tiny_dit,
    tiny_latent_pipeline,
    tiny_pipeline,
    tiny_pixart,
    tiny_stable_diffusion,
    tiny_unet,
)


def assert_frozen(teacher: Teacher) -> None:
    parameters = list(teacher.denoiser.parameters())
    assert not teacher.denoiser.training
    assert not any(parameter.requires_grad for parameter in parameters)
    assert {parameter.dtype for parameter in parameters} == {torch.float32}


def test_the_built_in_digits_are_a_teacher() -> None:
    teacher = load_teacher("digits")
    assert (teacher.source, teacher.family.name) == ("digits", "unet2d")
    assert teacher.denoiser is teacher.pipeline.unet
    assert_frozen(teacher)


def test_a_folder_is_loaded_with_its_weights_and_scheduler(folder: Path) -> None:
    teacher = load_teacher(str(folder))
    stored = load_file(folder / WEIGHTS)
    assert type(teacher.pipeline) is DDPMPipeline
    assert type(teacher.pipeline.scheduler) is DDPMScheduler
    assert all(torch.equal(stored[k], v) for k, v in teacher.denoiser.state_dict().items())


def test_half_precision_weights_become_single(tmp_path: Path) -> None:
    tiny_pipeline().to(torch.float16).save_pretrained(tmp_path)
    assert_frozen(load_teacher(str(tmp_path)))


def test_text_encoders_stay_in_the_type_of_their_files(tmp_path: Path) -> None:
    pipeline = tiny_stable_diffusion()
    pipeline.text_encoder.half()
    pipeline.save_pretrained(tmp_path)
    assert load_teacher(str(tmp_path)).pipeline.text_encoder.dtype == torch.float16


@pytest.mark.parametrize("trust_remote_code", [False, True])
def test_a_student_is_a_teacher_too(student: Path, trust_remote_code: bool) -> None:
    teacher = load_teacher(str(student), trust_remote_code=trust_remote_code)
    assert teacher.denoiser.config.edits
    assert type(teacher.denoiser) is DiffNASUNet2DModel
    assert_frozen(teacher)


def test_pipelines_with_all_files_in_one_folder_are_loaded(folder: Path) -> None:
    expected = load_file(folder / WEIGHTS)
    flatten(folder)
    weights = load_teacher(str(folder)).denoiser.state_dict()
    assert all(torch.equal(expected[name], value) for name, value in weights.items())


def test_of_what_has_no_such_variant_the_plain_weights_are_loaded(tmp_path: Path) -> None:
    pipeline = tiny_stable_diffusion()
    pipeline.save_pretrained(tmp_path)
    for file in (tmp_path / "unet").glob("*.safetensors"):
        file.unlink()
    pipeline.unet.half().save_pretrained(tmp_path / "unet", variant="fp16")
    teacher = load_teacher(str(tmp_path), variant="fp16")
    weights = load_file(next((tmp_path / "vae").glob("*.safetensors")))
    coder = teacher.pipeline.vae.state_dict()
    assert all(torch.equal(coder[name], each) for name, each in weights.items())


def test_a_variant_is_loaded_by_its_name(tmp_path: Path) -> None:
    tiny_pipeline().save_pretrained(tmp_path, variant="ema")
    assert_frozen(load_teacher(str(tmp_path), variant="ema"))
    assert "--variant ema" in refused(tmp_path)
    assert "it has ema" in refused(tmp_path, variant="fp16")


@pytest.mark.parametrize("model", ["digits", "folder", "student"])
def test_a_skeleton_has_the_teachers_shapes_and_no_data(
    model: str, request: pytest.FixtureRequest
) -> None:
    source = model if model == "digits" else str(request.getfixturevalue(model))
    skeleton, teacher = load_skeleton(source), load_teacher(source)
    shapes = {name: value.shape for name, value in teacher.denoiser.state_dict().items()}
    assert {name: v.shape for name, v in skeleton.denoiser.state_dict().items()} == shapes
    assert all(parameter.is_meta for parameter in skeleton.denoiser.parameters())
    assert skeleton.family is teacher.family
    assert dict(skeleton.pipeline.scheduler.config) == dict(teacher.pipeline.scheduler.config)


def test_a_skeleton_needs_two_config_files_only(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    shutil.rmtree(folder / "scheduler")
    assert load_skeleton(str(folder)).pipeline.scheduler is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_denoisers_config_alone_makes_the_skeleton_of_its_pipeline(
    kind: str, tmp_path: Path
) -> None:
    known = teacher(kind)
    known.denoiser.save_config(tmp_path)
    skeleton = load_skeleton(str(tmp_path))
    assert skeleton.alone
    assert skeleton.family is known.family
    shapes = {name: each.shape for name, each in known.denoiser.state_dict().items()}
    assert {name: each.shape for name, each in skeleton.denoiser.state_dict().items()} == shapes


def test_a_denoiser_alone_is_the_one_of_the_folder_and_not_another_beside_it(
    tmp_path: Path,
) -> None:
    tiny_condition_unet().save_config(tmp_path)
    tiny_unet().save_config(tmp_path / "unet")
    assert isinstance(load_skeleton(str(tmp_path)).denoiser, UNet2DConditionModel)
    tiny_condition_unet(cross_attention_dim=16).save_config(tmp_path / "unet")
    assert load_skeleton(str(tmp_path)).denoiser.config.cross_attention_dim == 32


@pytest.mark.parametrize("make", [tiny_dit, tiny_pixart])
def test_a_denoiser_published_under_its_former_class_is_found(make: Any, tmp_path: Path) -> None:
    make().save_pretrained(tmp_path)
    edit_json(tmp_path / "model_index.json", transformer=["diffusers", "Transformer2DModel"])
    edit_json(tmp_path / "transformer" / "config.json", _class_name="Transformer2DModel")
    kind = type(make().transformer)
    for load in (load_teacher, load_skeleton):
        found = load(str(tmp_path))
        assert type(found.denoiser) is kind
        assert kind in found.family.classes
    assert type(load_skeleton(str(tmp_path / "transformer")).denoiser) is kind


def test_a_weight_of_published_files_that_no_model_has_is_passed_over(tmp_path: Path) -> None:
    tiny_pixart().save_pretrained(tmp_path)
    weights = tmp_path / "transformer" / "diffusion_pytorch_model.safetensors"
    save_file(load_file(weights) | {"caption_projection.y_embedding": torch.ones(2, 3)}, weights)
    assert load_teacher(str(tmp_path)).family.name == "pixart"


def test_a_students_denoiser_alone_keeps_its_edits(student: Path) -> None:
    skeleton = load_skeleton(str(student / "unet"))
    assert type(skeleton.denoiser) is DiffNASUNet2DModel
    assert skeleton.denoiser.config.edits


def test_a_config_says_how_many_rows_of_text_states_a_call_is_told(tmp_path: Path) -> None:
    tiny_condition_unet().save_config(tmp_path)

    def told() -> torch.Size:
        skeleton = load_skeleton(str(tmp_path))
        example = skeleton.family.example_condition(skeleton.denoiser, 2, torch.device("meta"))
        return example["encoder_hidden_states"].shape

    assert told() == (2, 77, 32)
    edit_json(tmp_path / "config.json", max_sequence_length=1)
    assert told() == (2, 1, 32)


def test_the_hub_is_asked_for_configs_only_by_a_skeleton(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def download(model: str, name: str, *, revision: str | None) -> str:
        asked.append((model, name, revision))
        return str(folder / name)

    monkeypatch.setattr(origin, "hf_hub_download", download)
    load_skeleton("someone/model", revision="v1")
    assert asked == [
        ("someone/model", name, "v1")
        for name in ("model_index.json", "unet/config.json", "scheduler/scheduler_config.json")
    ]


def test_of_a_hub_pipeline_only_safetensors_are_fetched(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def download(model: str, **settings: Any) -> str:
        asked.update(settings, model=model)
        return str(folder)

    monkeypatch.setattr(origin, "hf_hub_download", lambda model, name, revision: folder / name)
    monkeypatch.setattr(origin.DiffusionPipeline, "download", download)
    assert_frozen(load_teacher("someone/model", revision="v1"))
    assert (asked["model"], asked["revision"]) == ("someone/model", "v1")
    assert asked["use_safetensors"] is True


def test_a_pipeline_of_latents_is_loaded_with_its_autoencoder(tmp_path: Path) -> None:
    tiny_latent_pipeline().save_pretrained(tmp_path)
    teacher = load_teacher(str(tmp_path))
    assert type(teacher.pipeline) is LDMPipeline
    assert not any(parameter.requires_grad for parameter in teacher.pipeline.vqvae.parameters())
    assert teacher.image_shape == load_skeleton(str(tmp_path)).image_shape == (3, 16, 16)


def test_the_pipelines_own_class_is_kept(tmp_path: Path) -> None:
    parts = tiny_pipeline(scheduler=diffusers.DDIMScheduler())
    DDIMPipeline(unet=parts.unet, scheduler=parts.scheduler).save_pretrained(tmp_path)
    assert type(load_teacher(str(tmp_path)).pipeline) is DDIMPipeline


def test_a_skeleton_is_guided_as_its_pipeline_would_be(tmp_path: Path) -> None:
    tiny_stable_diffusion().save_pretrained(tmp_path)
    assert load_skeleton(str(tmp_path)).guidance() == 7.5
