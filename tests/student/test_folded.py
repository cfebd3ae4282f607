"""An upsampler that enlarges and convolves in one gives what it gave in two."""

import pytest
import torch
from diffusers.models.upsampling import Upsample2D
from torch import nn

from diffnas.measure.cost import call_cost, to_meta
from diffnas.student.modeling import edit_module

FOLDED = {"kind": "upsampler"}


def upsampler(**variant):
    torch.manual_seed(0)
    return Upsample2D(4, use_conv=True, **variant).eval()


def folded(plain, **edit):
    """The edited upsampler; with the plain one's weights where they have its shape."""
    torch.manual_seed(1)
    made = edit_module(plain, FOLDED | edit)
    if not edit:
        made.load_state_dict(plain.state_dict())
    return made


def in_two(layer, *args):
    """What a folded upsampler's layers give without being folded."""
    return Upsample2D.forward(layer, *args)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (4, 4)])
@pytest.mark.parametrize("variant", [{}, {"out_channels": 6}, {"bias": False}])
def test_a_folded_upsampler_gives_what_the_plain_one_gives(size, variant):
    plain = upsampler(**variant)
    x = torch.randn(2, 4, *size)
    torch.testing.assert_close(folded(plain)(x), plain(x))


@pytest.mark.parametrize("edit", [{"rank": 2}, {"kernel": 1}, {"kernel": 5}])
def test_its_other_convolutions_give_what_they_give_in_two(edit):
    layer = folded(upsampler(), **edit)
    x = torch.randn(2, 4, 4, 6)
    torch.testing.assert_close(layer(x), in_two(layer, x))


@pytest.mark.parametrize("output_size", [(8, 8), (7, 7), (9, 8)])
def test_a_size_asked_for_is_given(output_size):
    plain = upsampler()
    x = torch.randn(2, 4, 4, 4)
    torch.testing.assert_close(folded(plain)(x, output_size), plain(x, output_size))


def test_gradients_are_the_plain_ones():
    plain = upsampler()
    layer = folded(plain)
    x = torch.randn(2, 4, 4, 4)
    for each in (plain, layer):
        each(x).square().mean().backward()
    torch.testing.assert_close(layer.conv.weight.grad, plain.conv.weight.grad)


@pytest.mark.parametrize(
    ("edit", "macs"),
    [
        ({}, 16 * 4 * 4),  # in two: 36 * 4 * 4
        ({"rank": 2}, 16 * 4 * 2 + 4 * 2 * 4),
        ({"kernel": 1}, 4 * 4),
    ],
    ids=["3x3", "rank", "1x1"],
)
def test_folding_saves_macs(edit, macs):
    layer = to_meta(folded(upsampler(), **edit))
    x = torch.empty(1, 4, 8, 8, device="meta")
    assert call_cost(layer, (x,)).macs == macs * 8 * 8


def test_a_layer_around_the_convolution_is_called():
    class Doubled(nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.base_layer, self.weight = layer, layer.weight

        def forward(self, x):
            return 2 * self.base_layer(x)

    plain = upsampler()
    layer = folded(plain)
    layer.conv = Doubled(layer.conv)
    x = torch.randn(2, 4, 4, 4)
    torch.testing.assert_close(layer(x), 2 * plain(x))


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
    with pytest.raises(ValueError, match="only a 3 x 3 convolution"):
        edit_module(layer, FOLDED)
