import pytest
import torch
from diffusers import UNet2DModel

from diffnas.student.modeling import DiffNASUNet2DModel, apply_edits
from diffnas.student.stock import as_model, stock_config
from tests.models import tiny_unet

SKIP = {"kind": "skip"}
NARROW = {"kind": "resnet", "width": 8, "groups": 2, "kernel": 3}
ATTENTION = {
    "block_out_channels": (16, 32),
    "down_block_types": ("AttnDownBlock2D", "UNetResAttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D"),
    "layers_per_block": 2,
}
DOWN_0 = {f"down_blocks.0.attentions.{i}": SKIP for i in range(2)}
DOWN_1 = {f"down_blocks.1.attentions.{i}": SKIP for i in range(2)}
UP_0 = {f"up_blocks.0.attentions.{i}": SKIP for i in range(3)}
UP_1 = {f"up_blocks.1.attentions.{i}": SKIP for i in range(3)}
MID_ATTENTION = {"mid_block.attentions.0": SKIP}
MID = {**MID_ATTENTION, "mid_block.resnets.0": SKIP, "mid_block.resnets.1": SKIP}
RESNET_SAMPLING = {"downsample_type": "resnet", "upsample_type": "resnet"}


def edited(teacher, edits):
    apply_edits(teacher, edits)
    return teacher.eval()


def random_inputs():
    torch.manual_seed(2)
    return torch.randn(2, 1, 8, 8), torch.tensor([3, 400])


@pytest.mark.parametrize(
    ("edits", "setting"),
    [
        ({}, {}),
        (DOWN_0, {}),
        (DOWN_1, {}),
        (UP_0, {}),
        (UP_1, {}),
        (MID_ATTENTION, {}),
        (MID, {}),
        ({**DOWN_0, **DOWN_1, **UP_0, **UP_1, **MID}, {}),
        (DOWN_0, {"downsample_padding": 0, "norm_eps": 0.1}),
        (MID_ATTENTION, {"resnet_time_scale_shift": "scale_shift"}),
        ({path: SKIP for path in MID if "resnets" in path}, {"add_attention": False}),
        ({**DOWN_1, **UP_1}, RESNET_SAMPLING),  # these levels do not resample
    ],
)
def test_a_stock_model_gives_the_edited_ones_output(edits, setting):
    teacher = tiny_unet(**ATTENTION, **setting)
    config = teacher.config
    student = edited(teacher, edits)
    stock = as_model(config, edits, student.state_dict())
    assert type(stock) is UNet2DModel
    inputs = random_inputs()
    torch.testing.assert_close(stock(*inputs).sample, student(*inputs).sample)
    assert list(stock.state_dict()) == list(student.state_dict())


@pytest.mark.parametrize(
    ("edits", "setting"),
    [
        ({"mid_block.resnets.0": NARROW}, {}),
        ({"mid_block.resnets.0": SKIP, **MID_ATTENTION}, {}),
        ({"down_blocks.0.attentions.0": SKIP}, {}),
        ({**UP_0, "down_blocks.0.attentions.1": {"kind": "attention", "heads": 1}}, {}),
        ({"down_blocks.0.downsamplers.0.conv": {"kind": "conv", "rank": 4}}, {}),
        (DOWN_0, RESNET_SAMPLING),
        (UP_0, RESNET_SAMPLING),
        (MID_ATTENTION, {"mid_block_scale_factor": 1.4}),
        (MID, {"mid_block_scale_factor": 1.4}),
    ],
)
def test_what_no_stock_config_says_becomes_the_edited_class(edits, setting):
    teacher = tiny_unet(**ATTENTION, **setting)
    config = teacher.config
    student = edited(teacher, edits)
    assert stock_config(config, edits) is None
    model = as_model(config, edits, student.state_dict())
    assert type(model) is DiffNASUNet2DModel
    inputs = random_inputs()
    torch.testing.assert_close(model(*inputs).sample, student(*inputs).sample)


def test_a_students_student_has_the_edits_of_both():
    first = {"mid_block.resnets.0": NARROW, **MID_ATTENTION}
    parent = edited(tiny_unet(), first)
    parent = as_model(tiny_unet().config, first, parent.state_dict())
    second = {"mid_block.resnets.0": {**NARROW, "width": 4, "groups": 1}}
    child = tiny_unet()
    apply_edits(child, {**first, **second})
    model = as_model(parent.config, second, child.state_dict())
    assert model.config.edits == {**first, **second}


def test_the_model_has_its_weights_dtype_and_keeps_no_origin():
    teacher = tiny_unet()
    teacher.register_to_config(_name_or_path="somewhere/else")
    model = as_model(teacher.config, {}, teacher.to(torch.bfloat16).state_dict())
    assert model.dtype == torch.bfloat16
    assert not model.training
    assert "_name_or_path" not in model.config


def test_weights_of_another_shape_are_refused():
    with pytest.raises(RuntimeError, match=r"mid_block\.resnets\.0"):
        as_model(tiny_unet().config, {"mid_block.resnets.0": NARROW}, tiny_unet().state_dict())
