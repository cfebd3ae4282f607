import json
import shutil

import pytest
import torch
from diffusers import DDIMScheduler, DDPMPipeline, UNet2DModel

from diffnas.errors import RunError, UserError
from diffnas.student import modeling
from diffnas.student.modeling import DiffNASUNet2DModel
from diffnas.student.saving import load, save_pipeline
from tests.engine import assert_same
from tests.models import tiny_pipeline, tiny_stable_diffusion

EDITS = {
    "down_blocks.0.resnets.0": {"kind": "resnet", "width": 8, "groups": 2, "kernel": 3},
    "mid_block.attentions.0": {"kind": "skip"},
}


def student_pipeline(edits=None):
    pipeline = tiny_pipeline(scheduler=DDIMScheduler(prediction_type="v_prediction"))
    pipeline.unet = DiffNASUNet2DModel.from_config(pipeline.unet.config, edits=edits or EDITS)
    pipeline.unet.eval()
    return pipeline


@pytest.fixture
def folder(tmp_path):
    """A saved student."""
    save_pipeline(student_pipeline(), tmp_path / "student")
    return tmp_path / "student"


def change_json(file, **values):
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def weights_of(folder):
    return folder / "unet" / "diffusion_pytorch_model.safetensors"


def assert_same_weights(one, other):
    weights = other.state_dict()
    assert list(one.state_dict()) == list(weights)
    assert all(torch.equal(weights[name], value) for name, value in one.state_dict().items())


def test_a_loaded_student_is_the_saved_one(tmp_path):
    saved = student_pipeline()
    save_pipeline(saved, tmp_path / "student")
    loaded = load(tmp_path / "student")
    assert type(loaded) is DDPMPipeline
    assert type(loaded.unet) is DiffNASUNet2DModel
    assert loaded.scheduler.config.prediction_type == "v_prediction"
    assert_same_weights(loaded.unet, saved.unet)
    x = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(loaded.unet(x, 3).sample, saved.unet(x, 3).sample)


def test_the_index_names_the_bare_module_beside_the_weights(folder):
    index = json.loads((folder / "model_index.json").read_text())
    assert index["unet"] == [modeling.MODULE_NAME, "DiffNASUNet2DModel"]
    assert (folder / "unet" / f"{modeling.MODULE_NAME}.py").is_file()


def test_an_ordinary_pipeline_loads(tmp_path):
    saved = tiny_pipeline()
    saved.save_pretrained(tmp_path)
    loaded = load(tmp_path)
    assert type(loaded.unet) is UNet2DModel
    assert_same_weights(loaded.unet, saved.unet)


def test_a_pipeline_whose_text_encoder_was_stored_in_half_precision_can_be_called(tmp_path):
    saved = tiny_stable_diffusion()
    saved.text_encoder.half()
    saved.save_pretrained(tmp_path)
    loaded = load(tmp_path)
    assert loaded.text_encoder.dtype == loaded.unet.dtype == torch.float32
    images = loaded("a cat", num_inference_steps=2, output_type="np").images
    assert images.shape == (1, 16, 16, 3)


def test_a_variant_is_loaded_by_its_name_and_asked_for_where_there_is_nothing_else(tmp_path):
    pipeline = tiny_pipeline()
    pipeline.save_pretrained(tmp_path, variant="fp16")
    assert_same(load(tmp_path, variant="fp16").unet.state_dict(), pipeline.unet.state_dict())
    with pytest.raises(UserError, match="all its weights are variants; give --variant fp16"):
        load(tmp_path)
    with pytest.raises(UserError, match=r"^--variant ema: .* has no such weights; it has fp16"):
        load(tmp_path, variant="ema")


def test_loading_runs_no_code_from_the_folder(folder):
    next(folder.glob("unet/*.py")).write_text("raise SystemExit('code from the folder was run')")
    assert type(load(folder).unet) is DiffNASUNet2DModel


def test_a_student_of_an_older_version_loads_and_saves_as_one_of_this(folder, tmp_path):
    older = "diffnas_student_0123456789ab"
    next(folder.glob("unet/*.py")).rename(folder / "unet" / f"{older}.py")
    change_json(folder / "model_index.json", unet=[older, "DiffNASUNet2DModel"])
    save_pipeline(load(folder), tmp_path / "again")
    index = json.loads((tmp_path / "again" / "model_index.json").read_text())
    assert index["unet"][0] == modeling.MODULE_NAME


def test_saving_replaces_a_pipeline(folder):
    edits = {"mid_block.resnets.0": {"kind": "skip"}}
    save_pipeline(student_pipeline(edits), folder, model_card="# A student\n")
    assert load(folder).unet.config.edits == edits
    assert (folder / "README.md").read_text() == "# A student\n"
    assert [path.name for path in folder.parent.iterdir()] == ["student"]


def test_a_failed_save_leaves_what_was_there(folder):
    class Broken:
        def save_pretrained(self, path, **kwargs):
            (path / "unet").mkdir()
            raise OSError(28, "No space left on device")

    before = weights_of(folder).read_bytes()
    with pytest.raises(RunError, match="no space left on the disk"):
        save_pipeline(Broken(), folder)
    assert weights_of(folder).read_bytes() == before
    assert [path.name for path in folder.parent.iterdir()] == ["student"]


@pytest.mark.parametrize("occupant", ["a file", "a folder of photos"])
def test_saving_over_something_else_is_refused(tmp_path, occupant):
    out = tmp_path / "out"
    if occupant == "a file":
        out.write_text("mine")
    else:
        out.mkdir()
        (out / "photo.png").write_text("mine")
    with pytest.raises(UserError, match="not a pipeline folder; name another"):
        save_pipeline(student_pipeline(), out)
    assert list(tmp_path.iterdir()) == [out]


def remove_folder(folder):
    shutil.rmtree(folder)


def remove_index(folder):
    (folder / "model_index.json").unlink()


def break_index(folder):
    (folder / "model_index.json").write_text('{"unet": [')


def remove_scheduler(folder):
    shutil.rmtree(folder / "scheduler")


def remove_schedulers_config(folder):
    (folder / "scheduler" / "scheduler_config.json").unlink()


def leave_scheduler_out_of_the_index(folder):
    index = json.loads((folder / "model_index.json").read_text())
    del index["scheduler"]
    (folder / "model_index.json").write_text(json.dumps(index))


def remove_config(folder):
    (folder / "unet" / "config.json").unlink()


def truncate_weights(folder):
    weights_of(folder).write_bytes(weights_of(folder).read_bytes()[:-100])


def corrupt_weights(folder):
    weights_of(folder).write_bytes(b"not weights at all")


def remove_weights(folder):
    weights_of(folder).unlink()


def widen_config(folder):
    change_json(folder / "unet" / "config.json", edits={})


def skip_more_than_was_saved(folder):
    edits = {**EDITS, "mid_block.resnets.0": {"kind": "skip"}}
    change_json(folder / "unet" / "config.json", edits=edits)


def keep_attention_that_was_skipped(folder):
    edits = {path: edit for path, edit in EDITS.items() if edit["kind"] != "skip"}
    change_json(folder / "unet" / "config.json", edits=edits)


def name_a_newer_format(folder):
    change_json(folder / "unet" / "config.json", edits_format=modeling.EDITS_FORMAT + 1)


def say_that_weights_are_quantized(folder):
    change_json(folder / "unet" / "config.json", quantization_config={"quant_method": "torchao"})


def name_an_unknown_edit(folder):
    change_json(folder / "unet" / "config.json", edits={"conv_in": {"kind": "melt"}})


def name_an_unknown_module(folder):
    change_json(folder / "unet" / "config.json", edits={"tower": {"kind": "skip"}})


def name_a_class_of_the_future(folder):
    change_json(folder / "model_index.json", unet=[modeling.MODULE_NAME, "DiffNASMamba"])


def name_the_stock_class(folder):
    change_json(folder / "model_index.json", unet=["diffusers", "UNet2DModel"])


def bring_other_code(folder):
    (folder / "unet" / "custom.py").write_text("raise SystemExit('this was run')")
    change_json(folder / "model_index.json", unet=["custom", "Custom"])


def name_a_pipeline_nobody_knows(folder):
    change_json(folder / "model_index.json", _class_name="NoSuchPipeline")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove_folder, "not a folder; give one with a model_index.json"),
        (remove_index, "model_index.json: No such file"),
        (break_index, "model_index.json: not a JSON object"),
        (remove_scheduler, "the folder scheduler/ .* is missing"),
        (remove_schedulers_config, "scheduler_config.json"),
        (leave_scheduler_out_of_the_index, "names no scheduler"),
        (remove_config, "config.json: No such file"),
        (truncate_weights, "safetensors: damaged or incomplete"),
        (corrupt_weights, "safetensors: damaged or incomplete"),
        (remove_weights, "diffusion_pytorch_model.safetensors"),
        (widen_config, "expected shape .*16.*but got .*8"),
        (skip_more_than_was_saved, "do not fit config.json: .* unexpected, e.g. mid_block.resnets"),
        (keep_attention_that_was_skipped, "do not fit config.json: .* missing, e.g. mid_block.att"),
        (name_a_newer_format, r"edits_format \d is newer than \d.*upgrade diffnas"),
        (
            say_that_weights_are_quantized,
            r"unet: its weights are quantized \(torchao\); give it as",
        ),
        (name_an_unknown_edit, "'conv_in'.*unknown kind 'melt'"),
        (name_an_unknown_module, "'tower': the model has no such module"),
        (name_a_class_of_the_future, "DiffNASMamba, .*upgrade diffnas"),
        (name_the_stock_class, "config.json has edits.*the stock UNet2DModel"),
        (bring_other_code, "its own code, custom.py, which is not run"),
        (name_a_pipeline_nobody_knows, "NoSuchPipeline"),
    ],
)
def test_a_damaged_folder_is_refused_in_one_line_that_names_it(folder, damage, message):
    damage(folder)
    with pytest.raises(UserError, match=message) as caught:
        load(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_stock_weights_that_do_not_fill_the_config_are_refused(tmp_path):
    # diffusers would load this one with a mid block of random layers.
    tiny_pipeline(mid_block_type=None).save_pretrained(tmp_path)
    change_json(tmp_path / "unet" / "config.json", mid_block_type="UNetMidBlock2D")
    with pytest.raises(UserError, match=r"missing, e\.g\. mid_block"):
        load(tmp_path)


def test_weights_that_may_not_be_read_are_not_called_damaged(folder, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(UserError, match=r"safetensors: not readable; check its permissions$"):
        load(folder)
