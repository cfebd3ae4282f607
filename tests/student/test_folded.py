"""An upsampler that convolves before it enlarges gives what it gave after."""

import pytest
import torch
from diffusers.models.upsampling import Upsample2D
from torch import nn

from diffnas.measure.cost import call_cost
from diffnas.measure.meta import to_meta
from diffnas.slots import upsampler as slot
from diffnas.student.modeling import (
    DiffNASUNet2DModel,
    edit_module,
    layers_on_streams,
    narrow_trunk,
)
from tests.models import tiny_unet

FOLDED = {"kind": "upsampler"}
FORMS = [{}, {"rank": 2}, {"kernel": 1}]
NAMES = ["whole", "rank", "1x1"]


def upsampler(**variant):
    torch.manual_seed(0)
    return Upsample2D(4, use_conv=True, **variant).eval()


def folded(plain, **edit):
    """The edited upsampler, with the weights that a supernet starts it with."""
    made = edit_module(plain, FOLDED | edit)
    made.load_state_dict(slot.SharedWeights(plain, [None, FOLDED | edit]).weights(FOLDED | edit))
    return made


def after(plain, **edit):
    """The plain upsampler whose convolution has that form, and the same weights."""
    if not edit:
        return plain
    of_conv = {"kind": "conv", **edit}
    weights = slot.SharedWeights(plain, [None, FOLDED | edit]).conv.weights(of_conv)
    made = upsampler(out_channels=plain.out_channels)
    made.conv = edit_module(plain.conv, of_conv)
    made.conv.load_state_dict(weights)
    return made


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (4, 4)])
@pytest.mark.parametrize("variant", [{}, {"out_channels": 6}], ids=["alike", "wider"])
@pytest.mark.parametrize("edit", FORMS, ids=NAMES)
def test_it_gives_what_the_same_convolution_gives_after_the_enlargement(edit, variant, size):
    plain = upsampler(**variant)
    x = torch.randn(2, 4, *size)
    torch.testing.assert_close(folded(plain, **edit)(x), after(plain, **edit)(x))


def test_a_convolution_without_a_bias_stays_without():
    plain = upsampler(bias=False)
    x = torch.randn(2, 4, 3, 3)
    torch.testing.assert_close(folded(plain)(x), plain(x))


@pytest.mark.parametrize("edit", FORMS, ids=NAMES)
@pytest.mark.parametrize("size", [(8, 8), (7, 7), (7, 8)])
def test_a_size_asked_for_is_given(size, edit):
    plain = upsampler()
    x = torch.randn(2, 4, 4, 4)
    given, expected = folded(plain, **edit)(x, size), after(plain, **edit)(x, size)
    assert given.shape == expected.shape
    torch.testing.assert_close(given[..., :6, :6], expected[..., :6, :6])


def test_gradients_reach_the_shared_weights_as_they_would_in_the_plain_one():
    plain = upsampler()
    shared = slot.SharedWeights(plain, [None, FOLDED])
    x = torch.randn(2, 4, 4, 4)
    layer = edit_module(plain, FOLDED)
    torch.func.functional_call(layer, shared.weights(FOLDED), (x,)).square().mean().backward()
    plain(x).square().mean().backward()
    torch.testing.assert_close(shared.conv.weight.grad, plain.conv.weight.grad)
    torch.testing.assert_close(shared.conv.bias.grad, plain.conv.bias.grad)


@pytest.mark.parametrize(
    ("edit", "macs", "params"),
    [
        ({}, 16 * 4 * 4, 4 * (4 * 4 * 4 + 4)),  # the plain one: 36 * 4 * 4, 9 * 4 * 4 + 4
        ({"rank": 2}, 16 * 4 * 2 + 4 * 2 * 4, 4 * 4 * 4 * 2 + 2 * 4 + 4),
        ({"kernel": 1}, 4 * 4, 4 * 4 + 4),
    ],
    ids=NAMES,
)
def test_it_costs_fewer_macs(edit, macs, params):
    layer = to_meta(folded(upsampler(), **edit))
    cost = call_cost(layer, (torch.empty(1, 4, 8, 8, device="meta"),))
    assert (cost.macs, cost.params) == (macs * 8 * 8, params)


@pytest.mark.parametrize("edit", FORMS, ids=NAMES)
def test_whatever_is_attached_to_its_layers_is_called(edit):
    layer = folded(upsampler(), **edit)
    called = []
    convolutions = [each for each in layer.modules() if isinstance(each, nn.Conv2d)]
    for each in convolutions:
        each.register_forward_hook(lambda *_: called.append(1))
    layer(torch.randn(1, 4, 2, 2))
    assert len(called) == len(convolutions)


@pytest.mark.parametrize("edit", FORMS, ids=NAMES)
def test_it_is_the_same_channels_last_and_compiled_whole(edit):
    layer = folded(upsampler(), **edit)
    x = torch.randn(2, 4, 4, 4)
    torch.testing.assert_close(layer(x.to(memory_format=torch.channels_last)), layer(x))
    torch.testing.assert_close(torch.compile(layer, backend="eager", fullgraph=True)(x), layer(x))


@pytest.mark.parametrize("edit", FORMS, ids=NAMES)
def test_a_model_with_it_is_saved_and_loaded(edit, tmp_path):
    edits = {"up_blocks.0.upsamplers.0": FOLDED | edit, "": {"kind": "trunk", "groups": 3}}
    student = DiffNASUNet2DModel.from_config(tiny_unet().config, edits=edits).eval()
    student.save_pretrained(tmp_path)
    loaded = DiffNASUNet2DModel.from_pretrained(tmp_path).eval()
    x = torch.randn(1, *student.conv_in.weight.shape[1:2], 8, 8)
    with torch.no_grad():
        assert torch.equal(loaded(x, 7).sample, student(x, 7).sample)


@pytest.mark.parametrize("edit", FORMS, ids=NAMES)
def test_the_trunk_of_a_model_with_it_can_be_narrowed(edit):
    student = DiffNASUNet2DModel.from_config(
        tiny_unet().config, edits={"up_blocks.0.upsamplers.0": FOLDED | edit}
    )
    own = "up_blocks.0.upsamplers.0"
    assert {each.module for each in layers_on_streams(student)} >= {own}
    narrow_trunk(student, 3, 4)
    x = torch.randn(1, *student.conv_in.weight.shape[1:2], 8, 8)
    assert student(x, 7).sample.shape == x.shape


@pytest.mark.parametrize(
    "layer",
    [
        Upsample2D(4, use_conv_transpose=True),
        Upsample2D(4),
        Upsample2D(4, use_conv=True, norm_type="rms_norm", eps=1e-6, elementwise_affine=True),
        Upsample2D(4, use_conv=True, interpolate=False),
        Upsample2D(4, use_conv=True, kernel_size=1, padding=0),
    ],
    ids=["transposed", "no convolution", "normalised", "not enlarging", "1x1"],
)
def test_other_upsamplers_are_refused(layer):
    assert not slot.matches(layer)
    with pytest.raises(ValueError, match="only a plain 3 x 3 convolution"):
        edit_module(layer, FOLDED)


@pytest.mark.parametrize(
    "change",
    [{"padding_mode": "circular"}, {"groups": 2}, {"dilation": 2}],
    ids=["circular", "grouped", "dilated"],
)
def test_other_convolutions_are_refused(change):
    layer = upsampler()
    layer.conv = nn.Conv2d(4, 4, 3, padding=1, **change)
    assert not slot.matches(layer)
    with pytest.raises(ValueError, match="only a plain 3 x 3 convolution"):
        edit_module(layer, FOLDED)


def test_another_kernel_is_refused():
    with pytest.raises(ValueError, match="kernel 5: an upsampler's may be 1"):
        edit_module(upsampler(), FOLDED | {"kernel": 5})
