"""The first k channels, heads or components are the k most important ones."""

import pytest
import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_flux import FluxSingleTransformerBlock
from diffusers.models.transformers.transformer_flux2 import (
    Flux2FeedForward,
    Flux2SingleTransformerBlock,
)
from torch import nn

from diffnas.settings import SpaceSettings
from diffnas.slots import attention, conv, feed_forward, parallel, resnet, single


def layer(**overrides):
    torch.manual_seed(0)
    return ResnetBlock2D(in_channels=8, out_channels=16, temb_channels=8, groups=4, **overrides)


@pytest.mark.parametrize("time", ["default", "scale_shift"])
def test_the_most_important_norm_group_comes_first(time):
    module = layer(time_embedding_norm=time)
    with torch.no_grad():
        module.norm2.weight[8:12] *= 5  # the third of four groups
        module.conv2.weight[:, 4:8] *= 3  # the second is read more strongly than the rest
    shared = resnet.SharedWeights(module, [None])
    edit = {"kind": "resnet", "width": 8, "groups": 2, "kernel": 3}
    weights = shared.weights(edit)
    kept = torch.tensor([*range(8, 12), *range(4, 8)])
    assert torch.equal(weights["conv1.weight"], module.conv1.weight[kept])
    assert torch.equal(weights["conv1.bias"], module.conv1.bias[kept])
    assert torch.equal(weights["norm2.weight"], module.norm2.weight[kept])
    assert torch.equal(weights["conv2.weight"], module.conv2.weight[:, kept])
    rows = torch.cat([kept, kept + 16]) if time == "scale_shift" else kept
    assert torch.equal(weights["time_emb_proj.weight"], module.time_emb_proj.weight[rows])
    assert torch.equal(weights["time_emb_proj.bias"], module.time_emb_proj.bias[rows])


def test_the_most_important_head_comes_first():
    torch.manual_seed(0)
    module = Attention(query_dim=12, heads=3, dim_head=4, bias=True)
    with torch.no_grad():
        module.to_v.weight[4:8] *= 9
    weights = attention.SharedWeights(module, [None]).weights({"kind": "attention", "heads": 1})
    for name in ("to_q", "to_k", "to_v"):
        whole = module.get_submodule(name)
        assert torch.equal(weights[f"{name}.weight"], whole.weight[4:8])
        assert torch.equal(weights[f"{name}.bias"], whole.bias[4:8])
    assert torch.equal(weights["to_out.0.weight"], module.to_out[0].weight[:, 4:8])


def test_the_most_important_heads_and_channels_beside_them_come_first():
    torch.manual_seed(0)
    module = FluxSingleTransformerBlock(12, 3, 4, mlp_ratio=0.5)
    with torch.no_grad():
        module.attn.to_v.weight[4:8] *= 9  # the second of three heads
        module.proj_out.weight[:, 12 + 3] *= 9  # the way out of the fourth of six channels
        module.proj_mlp.weight[1] *= 5
    edit = {"kind": "single", "heads": 1, "width": 2}
    weights = single.SharedWeights(module, [None]).weights(edit)
    for name in ("to_q", "to_k", "to_v"):
        whole = module.attn.get_submodule(name)
        assert torch.equal(weights[f"attn.{name}.weight"], whole.weight[4:8])
        assert torch.equal(weights[f"attn.{name}.bias"], whole.bias[4:8])
    assert torch.equal(weights["proj_mlp.weight"], module.proj_mlp.weight[[3, 1]])
    assert torch.equal(weights["proj_mlp.bias"], module.proj_mlp.bias[[3, 1]])
    out = module.proj_out.weight[:, [4, 5, 6, 7, 15, 13]]
    assert torch.equal(weights["proj_out.weight"], out)


def test_the_most_important_heads_and_channels_of_joined_projections_come_first():
    torch.manual_seed(0)
    module = Flux2SingleTransformerBlock(12, 3, 4, mlp_ratio=0.5)
    inward, outward = module.attn.to_qkv_mlp_proj.weight, module.attn.to_out.weight
    with torch.no_grad():
        inward[24 + 4 : 24 + 8] *= 9  # the values of the second of three heads
        inward[8:12] *= 99  # the queries of the third
        inward[36] *= 99  # the gate of the first of six channels
        inward[42 + 1] *= 5  # the second channel
        outward[:, 12 + 3] *= 9  # the way out of the fourth
    edit = {"kind": "parallel", "heads": 1, "width": 2}
    weights = parallel.SharedWeights(module, [None]).weights(edit)
    heads = [*range(4, 8), *range(16, 20), *range(28, 32)]  # of queries, keys and values
    kept = [*heads, 36 + 3, 36 + 1, 42 + 3, 42 + 1]
    assert torch.equal(weights["attn.to_qkv_mlp_proj.weight"], inward[kept])
    assert torch.equal(weights["attn.to_out.weight"], outward[:, [4, 5, 6, 7, 15, 13]])


def test_the_most_important_channels_come_first_where_gates_are_before_them():
    torch.manual_seed(0)
    module = Flux2FeedForward(8, mult=0.5)
    with torch.no_grad():
        module.linear_in.weight[0] *= 99  # the gate of the first of four channels
        module.linear_in.weight[4 + 2] *= 9
    weights = feed_forward.views(feed_forward.ordered(module), 1)
    assert torch.equal(weights["linear_in.weight"], module.linear_in.weight[[2, 6]])
    assert torch.equal(weights["linear_out.weight"], module.linear_out.weight[:, [2]])


def test_a_convolution_of_full_rank_is_the_teachers():
    torch.manual_seed(0)
    module = nn.Conv2d(4, 6, 3, stride=2, padding=1)
    weights = conv.SharedWeights(module, [{"kind": "conv", "rank": 6}]).weights({"rank": 6})
    product = torch.einsum("or,rikl->oikl", weights["1.weight"][:, :, 0, 0], weights["0.weight"])
    torch.testing.assert_close(product, module.weight)


def test_a_lower_rank_is_the_nearest_of_its_rank():
    torch.manual_seed(0)
    module = nn.Conv2d(4, 6, 3)
    weights = conv.SharedWeights(module, [{"rank": 4}, {"rank": 2}]).weights({"rank": 2})
    product = torch.einsum("or,rikl->oikl", weights["1.weight"][:, :, 0, 0], weights["0.weight"])
    dropped = torch.linalg.svdvals(module.weight.flatten(1))[2:]
    torch.testing.assert_close((module.weight - product).norm(), dropped.norm())


def test_a_5x5_kernel_starts_as_the_teachers_3x3():
    module = layer()
    edit = {"kind": "resnet", "width": 16, "groups": 4, "kernel": 5}
    weights = resnet.SharedWeights(module, [None, edit]).weights(edit)
    assert weights["conv2.weight"].shape[2:] == (5, 5)
    assert weights["conv2.weight"][..., 1:4, 1:4].norm() == module.conv2.weight.norm()


def test_other_kernels_do_not_touch_the_teachers_weights():
    edit = {"kind": "resnet", "width": 16, "groups": 4, "kernel": 1}
    shared = resnet.SharedWeights(layer(), [None, edit])
    own, other = shared.weights(None), shared.weights(edit)
    own["conv1.weight"].data.zero_()
    assert other["conv1.weight"].abs().sum() > 0


FULL = SpaceSettings(conv_ranks=(0.5, 0.25))


@pytest.mark.parametrize(
    ("module", "names"),
    [
        (nn.Conv2d(8, 8, 3, padding=1), ["teacher", "rank=4", "rank=2", "kernel=1"]),
        (nn.Conv2d(8, 8, 3, padding=1, stride=2), ["teacher", "rank=4", "rank=2"]),
        (nn.Conv2d(8, 8, 3), ["teacher", "rank=4", "rank=2"]),
        (nn.Conv2d(8, 8, 2, padding=1), ["teacher", "rank=4", "rank=2"]),
        (nn.Conv2d(1, 32, 3, padding=1), ["teacher", "rank=8", "kernel=1"]),  # 9 taps at most
    ],
)
def test_options_of_a_convolution(module, names):
    assert conv.matches(module)
    assert [name for name, _ in conv.edits(module, FULL)] == names


@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(8, 8, 1),
        nn.Conv2d(8, 8, 3, groups=2),
        nn.Conv2d(8, 8, 3, dilation=2),
        nn.Conv2d(8, 8, 3, padding="same"),
        nn.Conv2d(8, 8, 3, padding=1, padding_mode="circular"),
        nn.Conv1d(8, 8, 3),
    ],
)
def test_convolutions_that_no_option_fits_are_left_alone(module):
    assert not conv.matches(module)
