import copy

import pytest
import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_flux import (
    FluxSingleTransformerBlock,
    FluxTransformerBlock,
)
from diffusers.models.transformers.transformer_flux2 import (
    Flux2SingleTransformerBlock,
    Flux2TransformerBlock,
)
from torch import nn

from diffnas.student.modeling import Skip, apply_edits, edit_module
from tests.models import tiny_unet

RESNETS = {
    "plain": {},
    "shortcut": {"out_channels": 24},
    "scale and shift": {"time_embedding_norm": "scale_shift"},
    "upsampling": {"up": True},
    "downsampling": {"down": True},
    "FIR downsampling": {"down": True, "kernel": "fir", "use_in_shortcut": True},
    "output scale": {"output_scale_factor": 1.4},
    "no time embedding": {"temb_channels": None},
    "time embedding not activated": {"skip_time_act": True},
}


def resnet(**variant):
    torch.manual_seed(0)
    layer = ResnetBlock2D(
        **{"in_channels": 16, "out_channels": 16, "temb_channels": 8, "groups": 4, **variant}
    ).eval()
    nn.init.normal_(layer.norm2.weight)
    return layer


def attention(**variant):
    torch.manual_seed(0)
    defaults = {"heads": 4, "dim_head": 8, "bias": True, "norm_num_groups": 4}
    return Attention(32, **{**defaults, "residual_connection": True, **variant}).eval()


def call_resnet(layer):
    torch.manual_seed(1)
    temb = torch.randn(2, 8) if layer.time_emb_proj is not None else None
    return torch.randn(2, 16, 4, 4), temb


@pytest.mark.parametrize("variant", RESNETS.values(), ids=RESNETS)
def test_a_narrow_resnet_is_the_wide_one_whose_other_channels_are_not_read(variant):
    wide = resnet(**variant)
    width, groups = wide.norm2.num_channels // 2, 2
    with torch.no_grad():
        wide.conv2.weight[:, width:] = 0
    narrow = edit_module(wide, {"kind": "resnet", "width": width, "groups": groups, "kernel": 3})
    weights = wide.state_dict()
    for name in ("conv1.weight", "conv1.bias", "norm2.weight", "norm2.bias"):
        weights[name] = weights[name][:width]
    weights["conv2.weight"] = weights["conv2.weight"][:, :width]
    if wide.time_emb_proj is not None:
        halves = 2 if wide.time_embedding_norm == "scale_shift" else 1
        for name in ("time_emb_proj.weight", "time_emb_proj.bias"):
            parts = weights[name].chunk(halves)
            weights[name] = torch.cat([part[:width] for part in parts])
    narrow.load_state_dict(weights)

    x, temb = call_resnet(wide)
    torch.testing.assert_close(narrow(x, temb), wide(x, temb))


@pytest.mark.parametrize("variant", RESNETS.values(), ids=RESNETS)
def test_a_skipped_resnet_is_the_layer_with_a_branch_of_zeros(variant):
    layer = resnet(**variant)
    nn.init.zeros_(layer.conv2.weight)
    nn.init.zeros_(layer.conv2.bias)
    x, temb = call_resnet(layer)
    torch.testing.assert_close(edit_module(layer, {"kind": "skip"})(x, temb), layer(x, temb))


@pytest.mark.parametrize("kernel", [1, 5])
def test_another_kernel_keeps_a_resnets_sizes(kernel):
    layer = resnet()
    new = edit_module(layer, {"kind": "resnet", "width": 16, "groups": 4, "kernel": kernel})
    x, temb = call_resnet(layer)
    assert new.conv1.kernel_size == new.conv2.kernel_size == (kernel, kernel)
    assert new(x, temb).shape == layer(x, temb).shape


@pytest.mark.parametrize(
    "variant",
    [{}, {"rescale_output_factor": 1.4}, {"bias": False}, {"qk_norm": "layer_norm"}],
    ids=["plain", "rescaled", "no bias", "normalised heads"],
)
def test_attention_with_fewer_heads_is_the_layer_whose_other_heads_are_not_read(variant):
    full = attention(**variant)
    with torch.no_grad():
        full.to_out[0].weight[:, 8:] = 0
    one = edit_module(full, {"kind": "attention", "heads": 1})
    weights = full.state_dict()
    for name in [name for name in weights if name.split(".")[0] in ("to_q", "to_k", "to_v")]:
        weights[name] = weights[name][:8]
    weights["to_out.0.weight"] = weights["to_out.0.weight"][:, :8]
    one.load_state_dict(weights)

    x = torch.randn(2, 32, 4, 4)
    torch.testing.assert_close(one(x), full(x))


def two_streams(kind):
    """A layer of FLUX's, with two heads, and what it is given: image, text, embedding of time."""
    torch.manual_seed(0)
    layer = kind(16, 2, 8).eval()
    return layer, {
        "hidden_states": torch.randn(2, 4, 16),
        "encoder_hidden_states": torch.randn(2, 3, 16),
        "temb": torch.randn(2, 16),
    }


def test_a_single_layer_with_less_is_the_layer_whose_rest_is_not_read():
    full, given = two_streams(FluxSingleTransformerBlock)
    with torch.no_grad():
        full.proj_out.weight[:, 8:16] = 0  # the second head's
        full.proj_out.weight[:, 16 + 24 :] = 0  # all but 24 channels beside
    less = edit_module(full, {"kind": "single", "heads": 1, "width": 24})
    weights = full.state_dict()
    for name in [name for name in weights if name.split(".")[1] in ("to_q", "to_k", "to_v")]:
        weights[name] = weights[name][:8]
    for name in ("proj_mlp.weight", "proj_mlp.bias"):
        weights[name] = weights[name][:24]
    kept = [*range(8), *range(16, 16 + 24)]
    weights["proj_out.weight"] = weights["proj_out.weight"][:, kept]
    less.load_state_dict(weights)
    torch.testing.assert_close(less(**given), full(**given))


@pytest.mark.parametrize("edit", [{"heads": 1}, {"width": 24}])
def test_a_single_layer_keeps_what_is_not_named(edit):
    full, given = two_streams(FluxSingleTransformerBlock)
    less = edit_module(full, {"kind": "single", **edit})
    inward = [8 * edit.get("heads", 2), edit.get("width", 64)]
    assert [less.attn.inner_dim, less.mlp_hidden_dim] == inward
    assert less.proj_out._tp_packed_row_blocks == inward
    assert [each.shape for each in less(**given)] == [each.shape for each in full(**given)]


def modulated(kind):
    """A layer of FLUX.2's, with two heads, and what it is given."""
    torch.manual_seed(0)
    layer, given = kind(16, 2, 8).eval(), {"hidden_states": torch.randn(2, 7, 16)}
    if kind is Flux2SingleTransformerBlock:  # image behind text already
        return layer, {**given, "encoder_hidden_states": None, "temb_mod": torch.randn(2, 48)}
    modulation = {f"temb_mod_{stream}": torch.randn(2, 96) for stream in ("img", "txt")}
    return layer, {**given, "encoder_hidden_states": torch.randn(2, 3, 16), **modulation}


def test_a_layer_of_joined_projections_with_less_is_the_layer_whose_rest_is_not_read():
    full, given = modulated(Flux2SingleTransformerBlock)
    with torch.no_grad():
        full.attn.to_out.weight[:, 8:16] = 0  # the second head's
        full.attn.to_out.weight[:, 16 + 24 :] = 0  # all but 24 channels beside
    less = edit_module(full, {"kind": "parallel", "heads": 1, "width": 24})
    weights = full.state_dict()
    heads = [start + each for start in (0, 16, 32) for each in range(8)]
    channels = [start + each for start in (48, 48 + 48) for each in range(24)]
    inward, outward = "attn.to_qkv_mlp_proj.weight", "attn.to_out.weight"
    weights[inward] = weights[inward][[*heads, *channels]]
    weights[outward] = weights[outward][:, [*range(8), *range(16, 16 + 24)]]
    less.load_state_dict(weights)
    torch.testing.assert_close(less(**given), full(**given))


@pytest.mark.parametrize("edit", [{"heads": 1}, {"width": 24}])
def test_a_layer_of_joined_projections_keeps_what_is_not_named(edit):
    full, given = modulated(Flux2SingleTransformerBlock)
    less = edit_module(full, {"kind": "parallel", **edit})
    heads, width = 8 * edit.get("heads", 2), edit.get("width", 48)
    assert less.attn.to_qkv_mlp_proj._tp_packed_col_blocks == [heads, heads, heads, width, width]
    assert less.attn.to_out._tp_packed_row_blocks == [heads, width]
    assert less(**given).shape == full(**given).shape


def test_a_feed_forward_of_joined_gates_with_less_is_the_one_whose_rest_is_not_read():
    full, given = modulated(Flux2TransformerBlock)
    with torch.no_grad():
        full.ff.linear_out.weight[:, 24:] = 0
    less = edit_module(full, {"kind": "joint", "width": 24})
    weights = full.state_dict()
    kept = [*range(24), *range(48, 48 + 24)]
    weights["ff.linear_in.weight"] = weights["ff.linear_in.weight"][kept]
    weights["ff.linear_out.weight"] = weights["ff.linear_out.weight"][:, :24]
    less.load_state_dict(weights)
    torch.testing.assert_close(less(**given), full(**given))


def test_a_skipped_layer_of_one_stream_hands_it_on():
    layer, given = modulated(Flux2SingleTransformerBlock)
    assert torch.equal(edit_module(layer, {"kind": "skip"})(**given), given["hidden_states"])


@pytest.mark.parametrize("kind", [FluxTransformerBlock, FluxSingleTransformerBlock])
def test_a_skipped_layer_of_two_streams_takes_them_without_names(kind):
    layer, given = two_streams(kind)
    text, image = edit_module(layer, {"kind": "skip"})(*given.values())
    assert torch.equal(text, given["encoder_hidden_states"])
    assert torch.equal(image, given["hidden_states"])


@pytest.mark.parametrize("kind", [FluxTransformerBlock, FluxSingleTransformerBlock])
def test_a_skipped_layer_of_two_streams_hands_on_text_and_image(kind):
    layer, given = two_streams(kind)
    text, image = edit_module(layer, {"kind": "skip"})(**given)
    assert torch.equal(text, given["encoder_hidden_states"])
    assert torch.equal(image, given["hidden_states"])
    assert [each.shape for each in layer(**given)] == [text.shape, image.shape]


@pytest.mark.parametrize("factor", [1.0, 1.4])
def test_skipped_attention_is_the_layer_with_a_branch_of_zeros(factor):
    layer = attention(rescale_output_factor=factor)
    nn.init.zeros_(layer.to_out[0].weight)
    nn.init.zeros_(layer.to_out[0].bias)
    x = torch.randn(2, 32, 4, 4)
    skipped = edit_module(layer, {"kind": "skip"})
    torch.testing.assert_close(skipped(x, temb=None), layer(x))
    assert not list(skipped.parameters())


def test_skipped_attention_without_residual_connection_gives_zeros():
    skipped = edit_module(attention(residual_connection=False), {"kind": "skip"})
    x = torch.randn(2, 32, 4, 4)
    assert torch.equal(skipped(x), torch.zeros_like(x))


@pytest.mark.parametrize("variant", [{"qk_norm": "layer_norm_across_heads", "kv_heads": 4}])
def test_attention_that_ties_its_heads_together_is_refused(variant):
    with pytest.raises(ValueError, match="heads"):
        edit_module(attention(**variant), {"kind": "attention", "heads": 1})


@pytest.mark.parametrize(("stride", "padding"), [(1, 1), (2, 1), (2, 0)])
def test_a_convolution_of_full_rank_can_be_the_original(stride, padding):
    conv = nn.Conv2d(3, 5, 3, stride, padding)
    product = edit_module(conv, {"kind": "conv", "rank": 5})
    with torch.no_grad():
        product[0].weight.copy_(conv.weight)
        product[1].weight.copy_(torch.eye(5)[:, :, None, None])
        product[1].bias.copy_(conv.bias)
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(product(x), conv(x))


@pytest.mark.parametrize(("stride", "kernel"), [(1, 1), (1, 5), (2, 1), (2, 5)])
def test_another_kernel_keeps_a_convolutions_output_size(stride, kernel):
    conv = nn.Conv2d(3, 5, 3, stride, padding=1)
    x = torch.randn(2, 3, 8, 8)
    assert edit_module(conv, {"kind": "conv", "kernel": kernel})(x).shape == conv(x).shape


@pytest.mark.parametrize(
    ("module", "edit", "message"),
    [
        (nn.Conv2d(3, 5, 3), {"kind": "conv", "kernel": 1}, "kernel 1 is too small"),
        (nn.Conv2d(4, 4, 3, groups=2), {"kind": "conv", "rank": 2}, "grouped"),
        (nn.Conv2d(3, 5, 3), {"kind": "conv"}, "rank or a kernel"),
        (nn.Linear(3, 5), {"kind": "skip"}, "'skip' is not for a Linear"),
        (resnet(), {"kind": "drop"}, "'drop' is not for a ResnetBlock2D"),
        (resnet(out_channels=24), {"kind": "drop"}, "only a layer that reads a skip"),
        (nn.Conv2d(3, 5, 3), {"kind": "melt"}, "unknown kind 'melt'"),
        (nn.Conv2d(3, 5, 3), {}, "unknown kind None"),
    ],
)
def test_an_edit_that_does_not_suit_the_module_is_refused(module, edit, message):
    with pytest.raises(ValueError, match=message):
        edit_module(module, edit)


@pytest.mark.parametrize(
    ("path", "edit", "message"),
    [
        ("down_blocks.7", {"kind": "skip"}, "'down_blocks.7': the model has no such module"),
        ("mid_block.resnets.0", {"kind": "resnet"}, "'mid_block.resnets.0': 'width'"),
        ("conv_in", {"kind": "skip"}, "'conv_in': .* not for a Conv2d"),
    ],
)
def test_a_refused_edit_names_its_module(path, edit, message):
    with pytest.raises(ValueError, match=message):
        apply_edits(tiny_unet(), {path: edit})


def test_new_layers_are_where_the_old_ones_were():
    layer = resnet().to("meta", torch.bfloat16).train()
    new = edit_module(layer, {"kind": "resnet", "width": 8, "groups": 2, "kernel": 3})
    assert {(p.device.type, p.dtype) for p in new.parameters()} == {("meta", torch.bfloat16)}
    assert new.training
    assert new.conv1.training


def test_an_edit_leaves_the_module_as_it_was():
    layer = resnet(out_channels=24)
    before = copy.deepcopy(layer.state_dict())
    skipped = edit_module(layer, {"kind": "skip"})
    nn.init.zeros_(skipped.conv_shortcut.weight)
    assert all(torch.equal(before[name], value) for name, value in layer.state_dict().items())


def test_a_convolution_held_under_two_names_is_replaced_under_both():
    parent = nn.ModuleList([Downsample2D(8, use_conv=True)])  # has `conv` and `Conv2d_0`
    apply_edits(parent, {"0.conv": {"kind": "conv", "rank": 2}})
    assert parent[0].conv is parent[0].Conv2d_0
    assert isinstance(parent[0].conv, nn.Sequential)


def test_skip_shares_what_it_keeps():
    layer = resnet(out_channels=24)
    assert Skip(layer).conv_shortcut is layer.conv_shortcut
