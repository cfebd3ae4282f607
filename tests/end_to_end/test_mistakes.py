"""What goes wrong in a run: one line with value and remedy, a status, nothing half-written."""

import errno
import importlib.util
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DanceDiffusionPipeline, DDPMPipeline, IPNDMScheduler, UNet1DModel
from diffusers import UNet2DConditionModel as ConditionedUNet
from huggingface_hub.errors import HTTPError, LocalEntryNotFoundError
from safetensors import SafetensorError

import diffnas
from diffnas.checkpoint import load_state
from diffnas.families import origin
from tests.end_to_end.pictures import pictures
from tests.end_to_end.runs import SEARCH, compress
from tests.models import tiny_dit, tiny_pipeline

FOLDER = {"data__held_out": "0.5", "evaluate__samples": "100"}
FULL = "No space left on device"


@pytest.fixture
def refused(tmp_path, capsys):
    """Give a command that must fail; returns its one line."""

    def run(model: Path | str, *flags: str, status: int = 2, **settings: Any) -> str:
        given = {"out": tmp_path / "run", **settings}
        assert compress(model, given.pop("out"), *flags, **given) == status
        printed, told = capsys.readouterr()
        assert printed == ""
        assert "Traceback" not in told
        lines = [line for line in told.splitlines() if line.startswith("diffnas: ")]
        assert lines == told.splitlines()[-1:]
        return lines[0]

    yield run
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".part", ".tmp", ".new")]


@pytest.fixture
def untouched(tmp_path):
    """The run must not even have begun."""
    yield
    assert not (tmp_path / "run").exists()


def begun(run: Path) -> set[str]:
    return {path.name for path in run.rglob("*") if path.is_file()}


def index(folder: Path, **components: str) -> Path:
    """A pipeline of diffusers' classes, as far as its index says."""
    folder.mkdir(exist_ok=True)
    entries = {name: ["diffusers", kind] for name, kind in components.items()}
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "Mine", **entries}))
    return folder


@pytest.mark.usefixtures("untouched")
class TestOfTheModel:
    @pytest.mark.parametrize("error", [LocalEntryNotFoundError, HTTPError])
    def test_a_name_that_nobody_knows(self, refused, monkeypatch, error):
        def download(*_: Any, **__: Any) -> str:
            raise error("offline")

        monkeypatch.setattr(origin, "hf_hub_download", download)
        told = refused("someone/ddpm-cats")
        assert "model someone/ddpm-cats: no such folder" in told
        assert "check the name" in told

    def test_a_path_that_is_not_there(self, refused, tmp_path):
        assert f"model {tmp_path}/cats: no such folder; give" in refused(tmp_path / "cats")

    def test_a_folder_that_is_no_pipeline(self, refused, tmp_path):
        told = refused(pictures(tmp_path / "pictures", 3))
        assert f"model {tmp_path}/pictures: no model_index.json" in told
        assert "give the folder or Hub id of a whole pipeline" in told

    def test_a_denoiser_of_sound(self, refused, tmp_path):
        unet = UNet1DModel(block_out_channels=(8, 8, 16), layers_per_block=1, norm_num_groups=4)
        DanceDiffusionPipeline(unet=unet, scheduler=IPNDMScheduler()).save_pretrained(
            tmp_path / "sound"
        )
        told = refused(tmp_path / "sound")
        assert "UNet1DModel is not supported; supported are UNet2DModel, UNet2DCond" in told

    def test_a_denoiser_of_texts(self, refused, tmp_path):
        folder = index(tmp_path / "texts", unet="UNet2DConditionModel", vae="AutoencoderKL")
        ConditionedUNet(
            block_out_channels=(8, 8),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            norm_num_groups=4,
            cross_attention_dim=8,
            sample_size=8,
        ).save_pretrained(folder / "unet")
        assert "it has no text_encoder and no tokenizer" in refused(folder)

    def test_a_prior(self, refused, tmp_path):
        folder = index(tmp_path / "prior", prior="PriorTransformer")
        told = refused(folder)
        assert "a component named unet or transformer; the pipeline holds prior (Prior" in told

    def test_a_transformer_of_another_kind(self, refused, tmp_path):
        folder = index(tmp_path / "sana", transformer="SanaTransformer2DModel")
        config = {"num_layers": 1, "num_attention_heads": 1, "attention_head_dim": 8}
        (folder / "transformer").mkdir()
        (folder / "transformer" / "config.json").write_text(json.dumps(config))
        assert "SanaTransformer2DModel is not supported" in refused(folder)

    def test_a_model_of_four_channels(self, refused, tmp_path):
        tiny_pipeline(in_channels=4, out_channels=4).save_pretrained(tmp_path / "latent")
        told = refused(tmp_path / "latent")
        assert f"model {tmp_path}/latent: its images have 4 channels" in told
        assert "1 (grey) or 3 (colour)" in told

    def test_weights_cut_off(self, refused, teacher, tmp_path):
        broken = Path(shutil.copytree(teacher, tmp_path / "broken"))
        weights = broken / "unet" / "diffusion_pytorch_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:20_000])
        told = refused(broken)
        assert f"{weights}: damaged or incomplete" in told
        assert "copy or download the file again" in told

    def test_weights_that_are_not_numbers(self, refused, tmp_path):
        pipeline = tiny_pipeline()
        torch.nn.init.constant_(pipeline.unet.conv_out.bias, torch.nan)
        pipeline.save_pretrained(tmp_path / "nan")
        assert f"model {tmp_path}/nan: its weights are not all finite" in refused(tmp_path / "nan")

    def test_a_scheduler_that_is_not_there(self, refused, teacher, tmp_path):
        broken = Path(shutil.copytree(teacher, tmp_path / "broken"))
        shutil.rmtree(broken / "scheduler")
        told = refused(broken)
        assert f"model {broken}: no scheduler; save the pipeline again" in told

    def test_a_stock_student_of_a_student_that_is_none(self, refused, finished):
        told = refused(finished / "students" / "macs-0.6" / "pipeline", "--space", "stock")
        assert "space.preset = 'stock': this model is itself a student" in told
        assert told.endswith("; use 'full'")


@pytest.mark.usefixtures("untouched")
class TestOfTheData:
    def test_a_folder_that_is_not_there(self, refused, teacher, tmp_path):
        told = refused(teacher, data=tmp_path / "none", **FOLDER)
        assert f"there is no folder '{tmp_path}/none'; give an existing one" in told

    @pytest.mark.parametrize("out", [".", "runs/first"])
    def test_a_run_folder_among_the_pictures(self, refused, teacher, tmp_path, out):
        folder = pictures(tmp_path / "photos", 4)
        before = begun(tmp_path)
        told = refused(teacher, data=str(folder), out=folder / out)
        assert "lies in --data" in told
        assert told.endswith("whose images its pictures would join; name another folder")
        assert begun(tmp_path) == before

    def test_pictures_where_a_run_keeps_its_own_data(self, refused, teacher, tmp_path):
        given = pictures(tmp_path / "data", 4)
        before = begun(tmp_path)
        told = refused(teacher, data=str(given), out=tmp_path)
        assert f"goes to {tmp_path / 'data'}, among those of --data {given}; give --out" in told
        assert begun(tmp_path) == before

    def test_a_run_folder_that_is_the_models_own(self, refused, tmp_path):
        tiny_pipeline().save_pretrained(tmp_path / "model")
        before = begun(tmp_path)
        told = refused(tmp_path / "model", out=tmp_path / "model")
        assert told.endswith("is the model's own folder; name another")
        assert begun(tmp_path) == before

    def test_a_file(self, refused, teacher, tmp_path):
        (tmp_path / "photo.png").write_bytes(b"")
        told = refused(teacher, data=tmp_path / "photo.png", **FOLDER)
        assert told.endswith("photo.png' is a file; give the folder that holds the images")

    def test_a_folder_without_pictures(self, refused, teacher, tmp_path):
        (tmp_path / "empty").mkdir()
        (tmp_path / "empty" / "notes.txt").write_text("none")
        told = refused(teacher, data=tmp_path / "empty", **FOLDER)
        assert f"no images in '{tmp_path}/empty'; give a folder that holds some" in told

    def test_a_folder_of_damaged_pictures(self, refused, teacher, tmp_path):
        folder = pictures(tmp_path / "damaged")
        for file in folder.iterdir():
            file.write_bytes(b"none")
        told = refused(teacher, data=folder, **FOLDER)
        assert f"none of the 200 images in '{folder}' can be read; check" in told

    def test_fewer_pictures_than_features(self, refused, teacher, tmp_path):
        folder = pictures(tmp_path / "few", 20)
        told = refused(teacher, data=folder, **FOLDER)
        assert f"data.held_out holds out 10 of the 20 images of {folder}: too few for 97" in told
        assert told.endswith("give 196 images or more")

    def test_fewer_samples_of_the_teacher_than_features(self, refused, teacher):
        told = refused(teacher, data="teacher", data__limit="100", evaluate__samples="100")
        assert "data.held_out holds out 20 of the 100 images of teacher: too few for 97" in told

    def test_one_picture(self, refused, teacher, tmp_path):
        refused(teacher, data=pictures(tmp_path / "one", 1), **FOLDER)

    def test_fewer_samples_than_features(self, refused, teacher):
        told = refused(teacher, evaluate__samples="32")
        assert "evaluate.samples = 32: too few for 64 features" in told
        assert "need 65; raise it" in told

    def test_features_of_other_images(self, refused, tmp_path):
        colours = {"in_channels": 3, "out_channels": 3}
        tiny_pipeline(**colours).save_pretrained(tmp_path / "colours")
        told = refused(
            tmp_path / "colours", data=tmp_path / "none", evaluate__features="digits", **FOLDER
        )
        assert "evaluate.features = digits: they are of grey images, and these are in" in told
        assert "colour; use patches, inception or auto" in told

    def test_features_whose_package_is_missing(self, refused, teacher, tmp_path, monkeypatch):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        # Before any image is looked at: there may be millions.
        told = refused(teacher, data=tmp_path / "none", evaluate__features="inception")
        assert "install DiffNAS with its extra 'fid'" in told

    def test_prompts_beside_images(self, refused, teacher):
        told = refused(teacher, data__prompts="captions.txt")
        assert "data.prompts = captions.txt: only '--data teacher' draws samples" in told

    def test_captions_of_a_model_that_takes_none(self, refused, teacher, tmp_path):
        told = refused(teacher, data=tmp_path / "none", data__caption_column="text", **FOLDER)
        assert told.endswith("data.caption_column = text: the model takes no text; leave it out")

    def test_other_shapes_of_a_model_of_squares(self, refused, tmp_path):
        tiny_dit().save_pretrained(tmp_path / "dit")
        told = refused(tmp_path / "dit", data=tmp_path / "none", data__crop="buckets", **FOLDER)
        assert "data.crop = buckets: model" in told
        assert "takes images of one size alone; leave it out" in told

    def test_other_shapes_of_the_teachers_own_samples(self, refused, teacher):
        told = refused(teacher, data="teacher", data__crop="buckets", **FOLDER)
        assert "data.crop = buckets: the teacher's own samples have one shape" in told

    def test_no_classes_for_a_model_of_classes(self, refused, tmp_path):
        tiny_pipeline(num_class_embeds=3).save_pretrained(tmp_path / "classes")
        data = pictures(tmp_path / "pictures", folders="abc")
        told = refused(tmp_path / "classes", data=data, **FOLDER)
        assert "no classes, but the model takes one of 3; set data.label_column" in told

    def test_more_classes_than_the_model_knows(self, refused, tmp_path):
        tiny_pipeline(num_class_embeds=3).save_pretrained(tmp_path / "classes")
        # The fourth is so rare that hundreds of steps could pass before it is met.
        data = pictures(tmp_path / "pictures", folders="abc")
        (data / "d").mkdir()
        (data / "a" / "000.png").rename(data / "d" / "000.png")
        settings = {"data": data, **FOLDER, "data__label_column": "class"}
        told = refused(tmp_path / "classes", **settings)
        assert "class 3 is out of range; the model knows 0 to 2" in told


class TestOfTheBudget:
    @pytest.mark.parametrize("kind", ["macs", "params", "memory"])
    def test_out_of_reach(self, refused, teacher, tmp_path, kind):
        told = refused(teacher, f"--{kind}", "0.001")
        assert re.search(rf"--{kind} 0.001: the smallest reachable is 0\.\d+ of the teach", told)
        assert "raise it, or allow smaller options" in told
        assert not (tmp_path / "run").exists()

    def test_a_latency_out_of_reach_is_found_by_measuring(self, refused, run, teacher):
        told = refused(teacher, "--latency", "0.001", out=run)
        assert "--latency 0.001: the " in told
        assert "raise it" in told
        assert [path.name for path in (run / "students").iterdir()] == ["macs-0.6"]

    def test_each_in_reach_but_not_together(self, refused, tmp_path):
        # Here the fewest parameters are in narrow layers, the fewest MACs in pointwise ones.
        tiny_pipeline(block_out_channels=(16, 16), add_attention=False).save_pretrained(
            tmp_path / "model"
        )
        space = {
            "space__resnet_widths": "[0.25]",
            "space__resnet_kernels": "[1]",
            "space__resnet_skip": "false",
            "space__attention_heads": "[]",
            "space__trunk": "1",
        }
        least = {
            kind: smallest_reachable(refused(tmp_path / "model", f"--{kind}", "0.001", **space))
            for kind in ("macs", "params")
        }
        limits = [word for kind, share in least.items() for word in (f"--{kind}", f"{share:.3f}")]
        told = refused(tmp_path / "model", *limits, **space)
        for kind, share in least.items():
            assert f"--{kind} {share:.3f}" in told
        assert re.search(r"the smallest reachable beside --params [0-9.]+ is [0-9.]+ ", told)
        assert "; raise one" in told
        told = refused(tmp_path / "model", "--macs", f"{least['macs'] / 2}", *limits[2:], **space)
        assert "beside" not in told
        assert "; raise it" in told
        assert not (tmp_path / "run" / "students").exists()

    def test_above_the_teachers_own_cost_is_the_teacher(self, run, teacher, capsys):
        # A supernet that has not learnt can replace nothing without a loss.
        settings = {"supernet__learning_rate": "1e-12", "retrain__learning_rate": "1e-12"}
        assert compress(teacher, run, "--macs", "100G", "--until", "student", **settings) == 0
        assert "--macs 100G: above the teacher's own" in capsys.readouterr().err
        student = diffnas.load(run / "students" / "macs-100G" / "pipeline").unet
        own = diffnas.load(teacher).unet
        assert type(student) is type(own)
        # Inner channels are in another order, so that only what comes out can be compared.
        noise = torch.randn(2, 1, 8, 8, generator=torch.manual_seed(0))
        with torch.no_grad():
            ours, theirs = (model(noise, 500).sample for model in (student, own))
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


def smallest_reachable(line: str) -> float:
    """The share in a refusal, a little raised because it is rounded there."""
    found = re.search(r"smallest reachable is ([\d.]+)", line)
    assert found is not None
    return float(found[1]) + 0.002


@pytest.mark.parametrize("below", ["", "/run"])
def test_a_run_folder_that_is_a_file(refused, teacher, tmp_path, below):
    (tmp_path / "notes.txt").write_text("mine")
    told = refused(teacher, out=f"{tmp_path}/notes.txt{below}")
    assert f"{tmp_path}/notes.txt is a file; name a folder" in told
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, FULL), SafetensorError(f"I/O: {FULL}")])
def test_a_disk_that_fills_up_in_training(refused, teacher, tmp_path, monkeypatch, error):
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("diffnas.checkpoint.save_file", fail)
    told = refused(teacher, status=1, space__trunk="1")
    assert f"{tmp_path}/run/supernet/checkpoint.safetensors: no space left" in told
    assert "give the same command again" in told
    assert begun(tmp_path / "run") == {"settings.yaml", "plan.json", "log.jsonl"}


def test_a_disk_that_fills_up_under_the_student(refused, finished, run, teacher, monkeypatch):
    def fail(pipeline: Any, folder: Path, **_: Any) -> None:
        (folder / "half.safetensors").write_text("half")
        raise OSError(errno.ENOSPC, FULL)

    student = run / "students" / "macs-0.6"
    shutil.rmtree(student)
    monkeypatch.setattr(DDPMPipeline, "save_pretrained", fail)
    told = refused(teacher, "--macs", "0.6", status=1, out=run)
    assert f"{student}/pipeline: no space left on the disk" in told
    assert "give the same command again" in told
    assert begun(student) == {"architecture.json", "retrain.safetensors"}
    monkeypatch.undo()
    assert compress(teacher, run, "--macs", "0.6") == 0
    ours, theirs = (
        diffnas.load(path / "students" / "macs-0.6" / "pipeline").unet.state_dict()
        for path in (run, finished)
    )
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())


@pytest.mark.parametrize("content", [b"", b"none", b"\xff" * 300])
def test_a_damaged_checkpoint_is_named_and_begun_again(teacher, tmp_path, capsys, content):
    checkpoint = tmp_path / "run" / SEARCH / "supernet" / "checkpoint.safetensors"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(content)
    assert compress(teacher, tmp_path / "run", "--until", "supernet") == 0
    assert f"{checkpoint}: damaged; supernet begins again" in capsys.readouterr().err
    assert begun(checkpoint.parent) == {"supernet.safetensors"}


def test_a_supernet_that_diverges_names_step_and_block(refused, teacher, tmp_path, monkeypatch):
    monkeypatch.setattr("diffnas.training.SAVE_EVERY", 0.0)
    told = refused(teacher, status=1, supernet__learning_rate="1e30")
    step = re.search(
        r"supernet step (\d+), block (down_blocks|mid_block|up_blocks)\S*: the loss is not", told
    )
    assert step is not None
    assert "lower supernet.learning_rate" in told
    found = load_state(tmp_path / "run" / SEARCH / "supernet" / "checkpoint.safetensors")
    assert found is not None
    tensors, meta = found
    assert meta["step"] == step[1]
    assert all(tensor.isfinite().all() for tensor in tensors.values())


def test_a_supernet_that_diverges_leaves_the_one_before(refused, run, teacher):
    file = run / SEARCH / "supernet" / "supernet.safetensors"
    before = file.read_bytes()
    refused(teacher, "--macs", "0.6", status=1, out=run, supernet__learning_rate="1e30")
    assert file.read_bytes() == before
