"""The model class of students that no stock config can express."""

import ast
import copy
import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from diffnas.student import modeling
from diffnas.student.modeling import DiffNASUNet2DModel
from tests.models import tiny_unet

EDITS = {
    "down_blocks.0.resnets.0": {"kind": "resnet", "width": 8, "groups": 2, "kernel": 3},
    "down_blocks.0.downsamplers.0.conv": {"kind": "conv", "rank": 4},
    "down_blocks.1.attentions.0": {"kind": "attention", "heads": 2},
    "mid_block.attentions.0": {"kind": "skip"},
    "up_blocks.1.resnets.1": {"kind": "skip"},
}


def test_the_config_is_the_parents_and_the_edits():
    teacher = tiny_unet(norm_eps=1e-3)
    student = DiffNASUNet2DModel.from_config(teacher.config, edits=EDITS)
    own = dict(student.config)
    assert own.pop("edits") == EDITS
    assert own.pop("edits_format") == modeling.EDITS_FORMAT
    ours = {key: value for key, value in own.items() if not key.startswith("_")}
    assert ours == {key: value for key, value in teacher.config.items() if not key.startswith("_")}


@pytest.mark.parametrize("low_cpu_mem_usage", [True, False])
@pytest.mark.parametrize(
    "setting",
    [
        {},
        {"downsample_padding": 0},
        {"norm_eps": 0.1},
        {"resnet_time_scale_shift": "scale_shift"},
        {
            "downsample_type": "resnet",
            "upsample_type": "resnet",
            "down_block_types": ["AttnDownBlock2D", "AttnDownBlock2D"],
        },
        {"num_class_embeds": 3},
        {"class_embed_type": "timestep"},
        {"freq_shift": 1, "flip_sin_to_cos": False},
        {"time_embedding_type": "fourier"},
        {"center_input_sample": True, "act_fn": "gelu", "attention_head_dim": 4},
        {"mid_block_scale_factor": 2.0, "attn_norm_num_groups": 8, "time_embedding_dim": 24},
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, dict) else str(value),
)
def test_settings_and_weights_survive_saving(tmp_path, setting, low_cpu_mem_usage):
    edits = {"mid_block.attentions.0": {"kind": "skip"}}
    edits["mid_block.resnets.0"] = {"kind": "resnet", "width": 8, "groups": 2, "kernel": 3}
    student = DiffNASUNet2DModel.from_config(tiny_unet(**setting).config, edits=edits).eval()
    student.save_pretrained(tmp_path)
    again, report = DiffNASUNet2DModel.from_pretrained(
        tmp_path, low_cpu_mem_usage=low_cpu_mem_usage, output_loading_info=True
    )
    assert {key: again.config[key] for key in setting} == setting
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    weights = student.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in again.state_dict().items())
    labels = (
        torch.tensor([0, 2]) if set(setting) & {"num_class_embeds", "class_embed_type"} else None
    )
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([3, 5])
    torch.testing.assert_close(again(x, t, labels).sample, student(x, t, labels).sample)


def test_edits_of_a_newer_format_are_refused():
    newer = modeling.EDITS_FORMAT + 1
    with pytest.raises(ValueError, match=f"edits_format {newer} is newer"):
        DiffNASUNet2DModel.from_config(tiny_unet().config, edits=EDITS, edits_format=newer)


def test_a_student_can_be_copied():
    student = DiffNASUNet2DModel.from_config(tiny_unet().config, edits=EDITS).eval()
    x, again = torch.randn(2, 1, 8, 8), copy.deepcopy(student)
    assert type(again) is DiffNASUNet2DModel
    assert torch.equal(again(x, 3).sample, student(x, 3).sample)


def test_the_travelling_file_needs_torch_and_diffusers_only():
    tree = ast.parse(Path(modeling.__file__).read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import)
             for alias in node.names}  # fmt: skip
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    packages = {name.split(".")[0] for name in names}
    assert packages - sys.stdlib_module_names == {"torch", "diffusers"}


def test_the_travelling_files_name_follows_its_content(tmp_path):
    source = Path(modeling.__file__).read_text()

    def name_of(text):
        file = tmp_path / "any.py"
        file.write_text(text)
        spec = importlib.util.spec_from_file_location("any", file)
        sys.modules["any"] = module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        finally:
            del sys.modules["any"]
        assert module.DiffNASUNet2DModel.__module__ == module.MODULE_NAME
        return module.MODULE_NAME

    assert name_of(source) == modeling.MODULE_NAME
    assert name_of(source + "# another version\n") != modeling.MODULE_NAME
