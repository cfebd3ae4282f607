import pytest
import torch
from diffusers import UNet2DConditionModel, UNet2DModel

from diffnas.student.modeling import DiffNASUNet2DModel, apply_edits
from diffnas.student.stock import as_model, stock_config
from tests.engine import scramble
from tests.models import tiny_condition_unet, tiny_unet

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
DROP = {"kind": "drop"}
DOWN_LAYER = {"down_blocks.0.resnets.1": SKIP, "down_blocks.1.resnets.1": SKIP}
UP_LAYER = {"up_blocks.0.resnets.1": DROP, "up_blocks.1.resnets.1": DROP}
THEIR_ATTENTION = {
    path.replace("resnets", "attentions"): SKIP for path in {**DOWN_LAYER, **UP_LAYER}
}
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
        ({**DOWN_LAYER, **UP_LAYER, **THEIR_ATTENTION}, {}),
        ({**DOWN_LAYER, **UP_LAYER, **THEIR_ATTENTION, **DOWN_0, **MID}, {}),
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
    assert len(stock.state_dict()) == len(student.state_dict())


@pytest.mark.parametrize(
    ("edits", "setting"),
    [
        ({"mid_block.resnets.0": NARROW}, {}),
        ({"mid_block.resnets.0": SKIP, **MID_ATTENTION}, {}),
        ({"down_blocks.0.attentions.0": SKIP}, {}),
        ({**DOWN_LAYER, **UP_LAYER}, {}),
        ({**DOWN_LAYER, **THEIR_ATTENTION}, {}),
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


SD = {
    "block_out_channels": (16, 32, 32),
    "layers_per_block": 2,
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
}
"""The form of Stable Diffusion 1 and 2."""
XL = {
    "layers_per_block": 2,
    "transformer_layers_per_block": (1, 5),
    "use_linear_projection": True,
}
"""That of XL: attention down to the last level, in several layers."""


def base(*levels, of=3, attention=True):
    """One layer a block, and two on the way up, as in BK-SDM-Base."""
    found = {}
    for level in levels:
        found[f"down_blocks.{level}.resnets.1"] = SKIP
        found[f"up_blocks.{of - 1 - level}.resnets.1"] = DROP
        if attention and level < of - 1:
            found[f"down_blocks.{level}.attentions.1"] = SKIP
            found[f"up_blocks.{of - 1 - level}.attentions.1"] = SKIP
    return found


def layers(*which):
    return {"kind": "transformer", "layers": list(which)}


NO_MID = {"mid_block.resnets.0": SKIP, "mid_block.attentions.0": SKIP, "mid_block.resnets.1": SKIP}
ONE_RESNET = {path: SKIP for path in NO_MID if path != "mid_block.resnets.0"}
SSD = {
    **{f"down_blocks.1.attentions.{i}": layers(0, 4) for i in range(2)},
    **{f"up_blocks.0.attentions.{i}": layers(0, 4) for i in range(2)},
    **ONE_RESNET,
}
"""As in SSD-1B: shallower transformers, all but the last on the way up, and one ResNet layer."""


@pytest.mark.parametrize(
    ("form", "edits", "entries"),
    [
        (SD, base(0, 1, 2), {"layers_per_block": [1, 1, 1]}),
        (SD, {**base(0, 1, 2), **NO_MID}, {"mid_block_type": None}),
        (SD, base(1), {"layers_per_block": [2, 1, 2]}),
        (SD, ONE_RESNET, {"mid_block_type": "UNetMidBlock2D"}),
        (
            SD,
            {f"up_blocks.1.attentions.{i}": SKIP for i in range(3)},
            {"up_block_types": ("UpBlock2D", "UpBlock2D", "CrossAttnUpBlock2D")},
        ),
        (
            XL,
            SSD,
            {
                "transformer_layers_per_block": [1, 2],
                "reverse_transformer_layers_per_block": [[2, 2, 5], 1],
                "mid_block_type": "UNetMidBlock2D",
            },
        ),
        (
            XL,
            {
                "down_blocks.1.attentions.0": layers(0),
                "mid_block.attentions.0": layers(0),
                **base(1, of=2, attention=False),
                "down_blocks.1.attentions.1": SKIP,
                "up_blocks.0.attentions.1": SKIP,
                "up_blocks.0.attentions.2": layers(0, 2, 4),
            },
            {
                "transformer_layers_per_block": [1, 1],
                "reverse_transformer_layers_per_block": [[5, 3], 1],
                "layers_per_block": [2, 1],
            },
        ),
        ({**SD, "layers_per_block": (1, 3, 1)}, {}, {"layers_per_block": (1, 3, 1)}),
        (
            {**SD, "layers_per_block": (1, 3, 1)},
            {
                **{f"down_blocks.1.{kind}.2": SKIP for kind in ("resnets", "attentions")},
                "up_blocks.1.resnets.1": DROP,
                "up_blocks.1.attentions.1": SKIP,
            },
            {"layers_per_block": [1, 2, 1]},
        ),
    ],
)
def test_a_stock_model_of_texts_gives_the_edited_ones_output(form, edits, entries):
    teacher = tiny_condition_unet(**form)
    scramble(teacher)
    config = teacher.config
    student = edited(teacher, edits)
    stock = as_model(config, edits, student.state_dict(), UNet2DConditionModel)
    assert type(stock) is UNet2DConditionModel
    assert {name: stock.config[name] for name in entries} == entries
    inputs = (torch.randn(2, 4, 8, 8), torch.tensor([3, 400]), torch.randn(2, 7, 32))
    torch.testing.assert_close(stock(*inputs).sample, student(*inputs).sample)


@pytest.mark.parametrize(
    ("form", "edits"),
    [
        (SD, {path: edit for path, edit in base(1).items() if "up_" in path}),
        (SD, {path: edit for path, edit in base(1).items() if "down_" in path}),
        (SD, base(0, 1, attention=False)),
        (SD, {"down_blocks.2.resnets.0": SKIP, "up_blocks.0.resnets.1": DROP}),
        (SD, {"down_blocks.2.resnets.1": SKIP, "up_blocks.0.resnets.0": DROP}),
        (SD, {"mid_block.attentions.0": SKIP}),
        (SD, {"mid_block.resnets.0": SKIP, "mid_block.attentions.0": SKIP}),
        (SD, {"down_blocks.0.attentions.0": {"kind": "transformer", "width": 32}}),
        (SD, {"conv_in": {"kind": "conv", "kernel": 1}}),
        ({**SD, "mid_block_scale_factor": 1.4}, ONE_RESNET),
        (XL, {"mid_block.attentions.0": layers(0)}),
        (XL, {"down_blocks.1.attentions.0": layers(0)}),
    ],
)
def test_what_no_stock_config_says_of_a_model_of_texts(form, edits):
    assert stock_config(tiny_condition_unet(**form).config, edits, UNet2DConditionModel) is None
