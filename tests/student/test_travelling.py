"""A student's folder where DiffNAS is not installed: processes that cannot import it."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMPipeline, DiffusionPipeline, UNet2DModel

from diffnas.student import modeling
from diffnas.student.modeling import DiffNASUNet2DModel, apply_edits
from diffnas.student.saving import load, save_pipeline
from diffnas.student.stock import as_model
from tests.models import tiny_pipeline

BASE = {"norm_eps": 0.1, "downsample_padding": 0, "resnet_time_scale_shift": "scale_shift"}
"""Settings of the teacher that are not diffusers' defaults."""

NARROW = {"mid_block.resnets.0": {"kind": "resnet", "width": 8, "groups": 2, "kernel": 3}}
EDITS = {
    **NARROW,
    "down_blocks.0.resnets.0": {"kind": "skip"},
    "down_blocks.0.downsamplers.0.conv": {"kind": "conv", "rank": 4},
    "down_blocks.1.attentions.0": {"kind": "attention", "heads": 2},
}
WITHOUT_MID_ATTENTION = {"mid_block.attentions.0": {"kind": "skip"}}

FOREIGNER = """
import json, sys
sys.modules["diffnas"] = None  # importing it fails, as where it is not installed
import numpy as np
import torch
from diffusers import AutoModel, DDPMPipeline, DiffusionPipeline
from diffusers.utils import logging
logging.set_verbosity_error()
torch.set_num_threads(1)

def images(pipeline):
    pipeline.set_progress_bar_config(disable=True)
    noise = torch.Generator().manual_seed(0)
    return pipeline(2, noise, num_inference_steps=2, output_type="np").images

def trusted(folder, **components):
    return DiffusionPipeline.from_pretrained(folder, trust_remote_code=True, **components)
"""

FIRST = """
home, facts = sys.argv[1], {}
student = trusted(home + "/first")
facts["module"] = type(student.unet).__module__
facts["bases"] = [kind.__name__ for kind in type(student.unet).__mro__]
np.save(home + "/first.npy", images(student))

trusted(home + "/other")
np.save(home + "/first_after_other.npy", images(student))
student.save_pretrained(home + "/second")

try:
    DiffusionPipeline.from_pretrained(home + "/first")
except ValueError as error:
    facts["untrusted"] = str(error)

model = AutoModel.from_pretrained(home + "/first/unet", trust_remote_code=True)
np.save(home + "/auto_model.npy", images(DDPMPipeline(unet=model, scheduler=student.scheduler)))
np.save(home + "/passed.npy", images(trusted(home + "/first", unet=model)))

stock = DiffusionPipeline.from_pretrained(home + "/stock")
facts["stock"] = [type(stock.unet).__module__.split(".")[0], type(stock.unet).__name__]
np.save(home + "/stock.npy", images(stock))
facts["diffnas"] = [name for name in sys.modules if name.split(".")[0] == "diffnas"]
print(json.dumps(facts))
"""

SECOND = """
home = sys.argv[1]
student = trusted(home + "/second")
np.save(home + "/second.npy", images(student))
student.save_pretrained(home + "/third")
print("{}")
"""


def images(pipeline):
    pipeline.set_progress_bar_config(disable=True)
    noise = torch.Generator().manual_seed(0)
    return pipeline(2, noise, num_inference_steps=2, output_type="np").images


def student_pipeline(edits):
    pipeline = tiny_pipeline(scheduler=DDIMScheduler(prediction_type="v_prediction"), **BASE)
    torch.manual_seed(1)
    student = DiffNASUNet2DModel.from_config(pipeline.unet.config, edits=edits)
    return DDPMPipeline(unet=student.eval(), scheduler=pipeline.scheduler)


def stock_pipeline():
    pipeline = tiny_pipeline(**BASE)
    config = pipeline.unet.config
    apply_edits(pipeline.unet, WITHOUT_MID_ATTENTION)
    model = as_model(config, WITHOUT_MID_ATTENTION, pipeline.unet.state_dict())
    return DDPMPipeline(unet=model, scheduler=pipeline.scheduler)


def elsewhere(home, code):
    """Run code in a clean process and give what it prints."""
    environment = {**os.environ, "HF_MODULES_CACHE": str(home / "cache"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-I", "-c", FOREIGNER + code, str(home)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Where `first`, `other` and `stock` were saved here, `second` and `third` elsewhere."""
    home = tmp_path_factory.mktemp("home")
    save_pipeline(student_pipeline(EDITS), home / "first")
    save_pipeline(student_pipeline(NARROW), home / "other")
    save_pipeline(stock_pipeline(), home / "stock")
    (home / "facts.json").write_text(json.dumps(elsewhere(home, FIRST)))
    elsewhere(home, SECOND)
    return home


@pytest.fixture(scope="module")
def facts(home):
    """What the process without DiffNAS saw."""
    return json.loads((home / "facts.json").read_text())


@pytest.fixture(scope="module")
def expected():
    """The images of the student in this process, where it was made."""
    return images(student_pipeline(EDITS))


def assert_same_images(file, expected):
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(np.load(file), expected, atol=1e-4)


def test_a_student_samples_without_diffnas(home, facts, expected):
    assert_same_images(home / "first.npy", expected)
    assert facts["diffnas"] == ["diffnas"]  # the None that bars the way, and nothing else
    assert "UNet2DModel" in facts["bases"]
    assert facts["module"] == modeling.MODULE_NAME


def test_without_the_flag_diffusers_asks_for_it(facts):
    assert "trust_remote_code=True" in facts["untrusted"]


def test_a_stock_student_needs_neither_diffnas_nor_the_flag(home, facts):
    assert facts["stock"] == ["diffusers", "UNet2DModel"]
    assert_same_images(home / "stock.npy", images(stock_pipeline()))
    assert not list((home / "stock").rglob("*.py"))


def test_a_second_student_in_one_process_leaves_the_first_as_it_was(home, expected):
    assert_same_images(home / "first_after_other.npy", expected)


def test_the_model_alone_loads_without_diffnas(home, expected):
    assert_same_images(home / "auto_model.npy", expected)


def test_a_model_loaded_alone_can_be_passed_to_its_pipeline(home, expected):
    assert_same_images(home / "passed.npy", expected)


@pytest.mark.parametrize("generation", ["second", "third"])
def test_a_student_saved_elsewhere_is_whole(home, generation):
    index = json.loads((home / generation / "model_index.json").read_text())
    assert index["unet"] == [modeling.MODULE_NAME, "DiffNASUNet2DModel"]
    copied = home / generation / "unet" / f"{modeling.MODULE_NAME}.py"
    assert copied.read_bytes() == next((home / "first" / "unet").glob("*.py")).read_bytes()


def test_the_second_generation_samples_as_the_first(home, expected):
    assert_same_images(home / "second.npy", expected)


def test_the_third_generation_is_the_first(home, expected):
    first, third = load(home / "first"), load(home / "third")
    assert type(third.unet) is DiffNASUNet2DModel
    weights = first.unet.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in third.unet.state_dict().items())
    np.testing.assert_allclose(images(third), expected, atol=1e-4)


def test_settings_survive_three_generations(home):
    third = load(home / "third")
    assert {name: third.unet.config[name] for name in BASE} == BASE
    assert third.unet.config.edits == EDITS
    assert third.scheduler.config.prediction_type == "v_prediction"


def test_a_student_loads_with_the_flag_where_diffnas_is_imported_too(home, monkeypatch, expected):
    monkeypatch.setattr(
        "diffusers.utils.dynamic_modules_utils.HF_MODULES_CACHE", str(home / "cache")
    )
    loaded = DiffusionPipeline.from_pretrained(home / "first", trust_remote_code=True)
    assert isinstance(loaded.unet, UNet2DModel)
    np.testing.assert_allclose(images(loaded), expected, atol=1e-4)


def test_our_loader_works_where_remote_code_is_switched_off(home, monkeypatch, expected):
    name = "diffusers.utils.dynamic_modules_utils.DIFFUSERS_DISABLE_REMOTE_CODE"
    monkeypatch.setattr(name, True)
    np.testing.assert_allclose(images(load(home / "first")), expected, atol=1e-4)


def test_a_student_made_here_can_be_passed_to_its_pipeline(home, expected):
    model = DiffNASUNet2DModel.from_pretrained(home / "first" / "unet")
    loaded = DiffusionPipeline.from_pretrained(home / "first", unet=model)
    assert loaded.unet is model
    np.testing.assert_allclose(images(loaded), expected, atol=1e-4)


def test_stock_classes_do_not_fill_a_narrower_students_layers_at_random(home):
    with pytest.raises(ValueError, match="expected shape"):
        UNet2DModel.from_pretrained(home / "first" / "unet")
