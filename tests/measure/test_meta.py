import pytest
import torch
from torch import nn

from diffnas.forecast.activations import saved_bytes
from diffnas.measure.meta import FusedKernels, to_meta

FLOAT = 4


def test_shared_parameters_stay_shared_and_frozen_ones_frozen() -> None:
    layer = nn.Linear(4, 4).requires_grad_(False)
    twin = to_meta(nn.ModuleDict({"a": layer, "b": layer}))
    assert twin["a"].weight is twin["b"].weight
    assert twin["a"].weight.is_meta
    assert not twin["a"].weight.requires_grad


def test_what_is_there_already_is_not_copied() -> None:
    module = nn.Linear(4, 4, device="meta")
    assert to_meta(module) is module


@pytest.mark.parametrize("norm", [nn.GroupNorm(2, 4), nn.LayerNorm([4, 8])])
def test_a_norm_gives_rows_in_order_as_it_does_on_a_device(norm: nn.Module) -> None:
    turned = torch.zeros(3, 8, 4).transpose(1, 2)
    with FusedKernels():
        made = to_meta(norm)(turned.to("meta"))
    real = norm(turned)
    assert (made.shape, made.stride()) == (real.shape, real.stride())


def test_a_norm_whose_weight_alone_is_trained_keeps_its_input() -> None:
    norm = nn.GroupNorm(2, 4, device="meta")
    given = torch.zeros(3, 4, 100, device="meta")
    assert saved_bytes(norm, (given,), {}) == FLOAT * 1200


def test_a_norm_keeps_a_copy_of_what_does_not_lie_in_order() -> None:
    norm = nn.GroupNorm(2, 4, device="meta")
    given = torch.zeros(3, 100, 4, device="meta").transpose(1, 2)
    assert saved_bytes(norm, (given,), {}) == FLOAT * 1200
