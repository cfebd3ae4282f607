import errno
import shutil
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import diffusers
import pytest
from diffusers import DDPMPipeline, UNet2DModel
from huggingface_hub import errors as hub
from safetensors.torch import load_file, save_file

from diffnas.families import origin
from diffnas.families.loading import load_skeleton, load_teacher
from diffnas.refusing import refusing
from tests.families.folders import WEIGHTS, edit_json, flatten, refused
from tests.models import (
    tiny_condition_unet,
    tiny_flux,
    tiny_latent_pipeline,
    tiny_pipeline,
    tiny_sd3,
    tiny_stable_diffusion,
    tiny_xl,
)


class Response:
    """What the Hub's errors want to know of an answer."""

    headers: ClassVar[dict[str, str]] = {}
    request = None


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (hub.RepositoryNotFoundError("404", response=Response()), "check the name"),
        (hub.RevisionNotFoundError("404", response=Response()), "no revision 'v1'"),
        (hub.GatedRepoError("403", response=Response()), "hf auth login"),
        (hub.LocalEntryNotFoundError("offline"), "check the name and the connection"),
        (hub.OfflineModeIsEnabled("offline"), "check the name and the connection"),
    ],
)
def test_what_the_hub_refuses_is_told(
    error: Exception, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(*_: Any, **__: Any) -> str:
        raise error

    monkeypatch.setattr(origin, "hf_hub_download", download)
    for load in (load_teacher, load_skeleton):
        assert words in refused("someone/model", load, revision="v1")


def test_a_name_that_cannot_be_a_hub_id_is_refused() -> None:
    assert "no valid Hub id" in refused("someone/no such model!")


@pytest.mark.parametrize("load", [load_teacher, load_skeleton])
def test_for_a_name_without_an_owner_the_hub_is_not_asked(
    load: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(origin, "hf_hub_download", None)
    assert "no such folder; give a pipeline folder, a Hub id (owner/name)" in refused("cats", load)


@pytest.mark.parametrize("load", [load_teacher, load_skeleton])
def test_a_missing_folder_and_a_file_are_refused(tmp_path: Path, load: Any) -> None:
    assert "no such folder" in refused(tmp_path / "missing", load)
    (tmp_path / "weights.bin").touch()
    assert "a file" in refused(tmp_path / "weights.bin", load)


@pytest.mark.parametrize("load", [load_teacher, load_skeleton])
def test_a_revision_of_what_is_not_on_the_hub_is_refused(folder: Path, load: Any) -> None:
    for model in ("digits", folder):
        told = refused(model, load, revision="v1")
        assert told.startswith(f"--revision v1: model {model} is no repository of the Hub")
        assert told.endswith("leave it out")


@pytest.mark.parametrize("load", [load_teacher, load_skeleton])
def test_a_folder_that_is_no_pipeline_is_refused(tmp_path: Path, load: Any) -> None:
    assert "no model_index.json" in refused(tmp_path, load)
    (tmp_path / "model_index.json").write_text("{")
    assert "not a JSON object" in refused(tmp_path, load)


@pytest.mark.parametrize("load", [load_teacher, load_skeleton])
@pytest.mark.parametrize("inside", [".", "students", "students/small"])
def test_the_folder_of_a_run_or_a_student_is_refused_with_its_pipelines(
    tmp_path: Path, inside: str, load: Any
) -> None:
    student = tmp_path / "students" / "small"
    student.mkdir(parents=True)
    (student / "architecture.json").write_text("{}")
    told = refused(tmp_path / inside, load)
    assert told.endswith("not a pipeline's; none is in it yet: finish the run")
    (student / "pipeline").mkdir()
    assert refused(tmp_path / inside, load).endswith(f"'s; give {student / 'pipeline'}")


def test_of_several_students_a_run_is_refused_with_all_pipelines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "ab":
        (tmp_path / "run" / "students" / name / "pipeline").mkdir(parents=True)
        (tmp_path / "run" / "students" / name / "architecture.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert refused("run", load_skeleton) == (
        "model run: a run's folder, not a pipeline's; "
        "give run/students/a/pipeline or run/students/b/pipeline"
    )


def test_a_denoiser_alone_is_no_teacher(folder: Path) -> None:
    told = refused(folder / "unet")
    assert told.startswith(f"model {folder}/unet: no model_index.json, so no diffusers pipeline")
    assert told.endswith("with its scheduler and, where it has them, autoencoder and text encoders")


@pytest.mark.parametrize("load", [load_teacher, load_skeleton])
def test_what_is_no_denoiser_is_refused_alone(tmp_path: Path, load: Any) -> None:
    tiny_latent_pipeline().vqvae.save_config(tmp_path)
    assert "nor the config.json of a supported denoiser" in refused(tmp_path, load)


@pytest.mark.parametrize("rows", [0, "one", True, 4097, 77.0])
def test_a_number_of_rows_that_is_none_is_refused(tmp_path: Path, rows: Any) -> None:
    tiny_condition_unet().save_config(tmp_path)
    edit_json(tmp_path / "config.json", max_sequence_length=rows)
    assert f"max_sequence_length {rows!r} in the denoiser" in refused(tmp_path, load_skeleton)


@pytest.mark.parametrize("load", [load_teacher, load_skeleton])
def test_other_rows_than_a_whole_pipelines_text_encoder_gives_are_refused(
    tmp_path: Path, load: Any
) -> None:
    tiny_stable_diffusion().save_pretrained(tmp_path)
    edit_json(tmp_path / "unet" / "config.json", max_sequence_length=77)
    load(str(tmp_path))
    edit_json(tmp_path / "unet" / "config.json", max_sequence_length=1)
    told = refused(tmp_path, load)
    assert "max_sequence_length 1 in the denoiser's config.json: it counts for a denoiser" in told


@pytest.mark.parametrize("load", [load_teacher, load_skeleton])
@pytest.mark.parametrize(
    ("index", "words"),
    [
        ({"unet": ["diffusers", "NoSuchModel"]}, "no model of diffusers"),
        ({"unet": ["my_code", "Net"]}, "made by code of its own, my_code.py"),
        ({"unet": [None, None]}, "the pipeline holds scheduler (DDPMScheduler)"),
        ({"scheduler": ["my_code", "Mine"]}, "none of diffusers'"),
        ({"scheduler": ["diffusers", "UNet2DModel"]}, "none of diffusers'"),
        ({"text_encoder": ["transformers", "CLIPTextModel"]}, "together with text_encoder"),
        ({"vae": ["diffusers", "AutoencoderKL"]}, "vae/config.json is missing"),
        ({"vae": ["my_code", "Mine"]}, "its vae is a Mine of my_code; supported are"),
        ({"vae": ["diffusers", "AutoencoderDC"]}, "its vae is a AutoencoderDC of diffusers"),
    ],
)
def test_unfit_components_are_refused(
    folder: Path, index: dict[str, Any], words: str, load: Any
) -> None:
    edit_json(folder / "model_index.json", **index)
    assert words in refused(folder, load)


@pytest.mark.parametrize("load", [load_teacher, load_skeleton])
def test_other_denoisers_are_refused_by_name(folder: Path, load: Any) -> None:
    edit_json(folder / "model_index.json", unet=["diffusers", "UNet3DConditionModel"])
    (folder / "unet" / "config.json").write_text("{}")
    line = refused(folder, load)
    assert "UNet3DConditionModel is not supported" in line
    assert "UNet2DModel" in line


@pytest.mark.parametrize("load", [load_teacher, load_skeleton])
def test_a_subclass_is_refused_as_a_student_would_lose_its_own_code(
    folder: Path, load: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Mine(UNet2DModel):
        pass

    monkeypatch.setattr(diffusers, "Mine", Mine, raising=False)
    edit_json(folder / "model_index.json", unet=["diffusers", "Mine"])
    assert "Mine is not supported" in refused(folder, load)


@pytest.mark.parametrize("load", [load_teacher, load_skeleton])
@pytest.mark.parametrize(
    ("coder", "words"),
    [
        ({"latent_channels": 5}, "latents have 5 channels, its denoiser takes 3"),
        ({"vq_embed_dim": 4}, "latents have 4 channels, its denoiser takes 3"),
        ({"in_channels": 2}, "autoencoder's images have 2 channels"),
    ],
)
def test_an_autoencoder_that_does_not_fit_is_refused(
    tmp_path: Path, coder: dict[str, int], words: str, load: Any
) -> None:
    tiny_latent_pipeline(**coder).save_pretrained(tmp_path)
    assert words in refused(tmp_path, load)


@pytest.mark.parametrize("load", [load_teacher, load_skeleton])
def test_an_autoencoder_of_latents_normalised_by_channel_is_refused(
    tmp_path: Path, load: Any
) -> None:
    tiny_xl().save_pretrained(tmp_path)
    edit_json(tmp_path / "vae" / "config.json", latents_mean=[1.0] * 4, latents_std=[2.0] * 4)
    assert "latents_mean and latents_std" in refused(tmp_path, load)


def test_a_damaged_autoencoder_is_refused(tmp_path: Path) -> None:
    pipeline = tiny_latent_pipeline()
    pipeline.save_pretrained(tmp_path / "whole")
    weights = tmp_path / "whole" / "vqvae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    name = next(iter(tensors))
    save_file({**tensors, name: tensors[name] * float("nan")}, weights)
    assert f"not all finite, e.g. {name}" in refused(tmp_path / "whole")
    pipeline.save_pretrained(tmp_path / "fp16", variant="fp16")
    weights = tmp_path / "fp16" / "vqvae" / "diffusion_pytorch_model.fp16.safetensors"
    save_file({key: value for key, value in tensors.items() if key != name}, weights)
    assert f"1 missing, e.g. {name}" in refused(tmp_path / "fp16", variant="fp16")


@pytest.mark.parametrize("load", [load_teacher, load_skeleton])
def test_other_channels_than_an_images_need_an_autoencoder(tmp_path: Path, load: Any) -> None:
    tiny_pipeline(in_channels=4, out_channels=4).save_pretrained(tmp_path)
    assert "4 channels and it has no autoencoder" in refused(tmp_path, load)


@pytest.mark.parametrize("load", [load_teacher, load_skeleton])
def test_a_scheduler_without_usable_noise_is_refused(tmp_path: Path, load: Any) -> None:
    scheduler = diffusers.EDMEulerScheduler()
    DDPMPipeline(unet=tiny_pipeline().unet, scheduler=scheduler).save_pretrained(tmp_path)
    assert "beta schedule" in refused(tmp_path, load)


@pytest.mark.parametrize("load", [load_teacher, load_skeleton])
def test_a_denoiser_that_is_told_levels_of_noise_is_refused(tmp_path: Path, load: Any) -> None:
    scheduler = diffusers.EulerDiscreteScheduler(timestep_type="continuous")
    DDPMPipeline(unet=tiny_pipeline().unet, scheduler=scheduler).save_pretrained(tmp_path)
    assert "timestep_type 'continuous'" in refused(tmp_path, load)


def test_a_teacher_without_scheduler_is_refused(folder: Path) -> None:
    shutil.rmtree(folder / "scheduler")
    assert "no scheduler" in refused(folder)


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("size", [5, 1000, 30_000])
def test_truncated_weights_are_refused(folder: Path, size: int, flat: bool) -> None:
    weights = folder / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:size])
    if flat:
        flatten(folder)
    assert "copy or" in refused(folder)


@pytest.mark.parametrize("flat", [False, True])
def test_weights_that_lack_layers_are_refused(folder: Path, flat: bool) -> None:
    weights = load_file(folder / WEIGHTS)
    del weights["conv_in.weight"]
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    if flat:
        flatten(folder)
    assert "conv_in.weight" in refused(folder)


def test_weights_that_are_no_safetensors_are_refused_with_a_way_out(tmp_path: Path) -> None:
    tiny_pipeline().save_pretrained(tmp_path, safe_serialization=False)
    assert "safe_serialization=True" in refused(tmp_path)


def test_a_pipeline_without_any_weights_is_refused_as_such(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    told = refused(folder)
    assert told.endswith(": its denoiser has no weights; copy or download the whole pipeline")


@pytest.mark.parametrize("others", [True, False])
def test_of_the_hub_too_it_is_told_whether_there_are_any_weights(
    folder: Path, monkeypatch: pytest.MonkeyPatch, others: bool
) -> None:
    def download(*_: Any, **__: Any) -> str:
        files = ["unet/diffusion_pytorch_model.bin"] if others else []
        raise OSError(f"Could not find the necessary `safetensors` weights in {files}")

    monkeypatch.setattr(origin, "hf_hub_download", lambda model, name, revision: folder / name)
    monkeypatch.setattr(origin.DiffusionPipeline, "download", download)
    assert ("safe_serialization=True" in refused("someone/model")) == others
    assert ("has no weights" in refused("someone/model")) != others


@pytest.mark.parametrize("load", [load_teacher, load_skeleton])
@pytest.mark.parametrize(
    "config",
    [{"norm_num_groups": 7}, {"down_block_types": ["NoBlock"] * 2}, {"block_out_channels": [8]}],
)
def test_a_config_that_makes_no_model_is_refused(
    folder: Path, config: dict[str, Any], load: Any
) -> None:
    edit_json(folder / "unet" / "config.json", **config)
    assert "cannot be made from its config" in refused(folder, load)


@pytest.mark.parametrize("load", [load_teacher, load_skeleton])
def test_a_student_of_a_later_version_is_refused(student: Path, load: Any) -> None:
    edit_json(student / "unet" / "config.json", edits_format=99)
    assert "upgrade diffnas" in refused(student, load)


@pytest.mark.parametrize("load", [load_teacher, load_skeleton])
def test_quantized_weights_are_refused(folder: Path, load: Any) -> None:
    edit_json(folder / "unet" / "config.json", quantization_config={"quant_method": "torchao"})
    assert "its weights are quantized (torchao); give it as it was before" in refused(folder, load)


@pytest.mark.parametrize(
    "load", [load_teacher, partial(load_teacher, trust_remote_code=True), load_skeleton]
)
def test_a_denoiser_of_its_own_code_is_refused_and_that_code_not_run(
    folder: Path, load: Any
) -> None:
    edit_json(folder / "model_index.json", unet=["mine", "Mine"])
    (folder / "unet" / "mine.py").write_text("raise ZeroDivisionError")
    told = refused(folder, load)
    assert "its unet is made by code of its own, mine.py" in told


def test_a_text_encoder_without_all_of_its_weights_is_refused(tmp_path: Path) -> None:
    tiny_stable_diffusion().save_pretrained(tmp_path)
    file = tmp_path / "text_encoder" / "model.safetensors"
    weights = load_file(file)
    del weights[next(name for name in weights if name.endswith("fc1.weight"))]
    save_file(weights, file, {"format": "pt"})
    assert "1 missing" in refused(tmp_path)


def test_a_text_encoder_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    pipeline = tiny_stable_diffusion()
    next(pipeline.text_encoder.parameters()).data.fill_(float("nan"))
    pipeline.save_pretrained(tmp_path)
    assert "not all finite" in refused(tmp_path)


@pytest.mark.parametrize("load", [load_teacher, load_skeleton])
def test_a_model_of_texts_without_text_encoder_is_refused(tmp_path: Path, load: Any) -> None:
    pipeline = tiny_stable_diffusion()
    pipeline.register_modules(text_encoder=None)
    pipeline.save_pretrained(tmp_path)
    assert "it has no text_encoder" in refused(tmp_path, load)


@pytest.mark.parametrize("load", [load_teacher, load_skeleton])
@pytest.mark.parametrize("make", [tiny_xl, tiny_sd3, tiny_flux])
def test_a_model_of_two_text_encoders_without_one_of_them_is_refused(
    tmp_path: Path, make: Any, load: Any
) -> None:
    for name in ("text_encoder", "text_encoder_2"):
        pipeline = make()
        pipeline.register_modules(**{name: None})
        pipeline.save_pretrained(tmp_path / name)
        assert f"it has no {name}," in refused(tmp_path / name, load)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("unable to mmap 9 bytes from file <a>: Cannot allocate memory (12)"),
        RuntimeError("CUDA error: out of memory"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_too_little_memory_is_not_the_pipelines_fault(error):
    with pytest.raises(type(error)), refusing("model x cannot be loaded"):
        raise error
