import torch
from diffusers.models.attention_processor import Attention
from torch import nn

from diffnas.measure.memory import memory_bytes
from tests.models import tiny_unet

FLOAT = 4


class Chain(nn.Module):
    """Calls layers in turn and keeps nothing."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def test_weights_input_and_output_of_one_layer() -> None:
    layer = Chain(nn.Linear(10, 20, bias=False))
    assert memory_bytes(layer, {"x": torch.zeros(3, 10)}) == FLOAT * (200 + 30 + 60)


def test_buffers_count_and_shared_weights_count_once() -> None:
    shared = nn.Linear(10, 10, bias=False)
    shared.register_buffer("extra", torch.zeros(7))
    once, twice = (memory_bytes(Chain(*[shared] * n), {"x": torch.zeros(1, 10)}) for n in (1, 2))
    assert once == FLOAT * (100 + 7 + 10 + 10)
    assert twice == once + FLOAT * 10


def test_activations_that_are_gone_do_not_add_up() -> None:
    layers = [nn.Linear(10, 10, bias=False) for _ in range(6)]
    activations = memory_bytes(Chain(*layers), {"x": torch.zeros(50, 10)}) - 6 * FLOAT * 100
    # The input belongs to the caller; beside it a layer's own input and output are alive.
    assert activations == 3 * FLOAT * 500


def test_views_take_no_room() -> None:
    plain, viewed = Chain(nn.Identity()), Chain(nn.Flatten(), nn.Unflatten(1, (2, 5)))
    inputs = {"x": torch.zeros(3, 2, 5)}
    assert memory_bytes(plain, inputs) == memory_bytes(viewed, inputs) == FLOAT * 30


def test_attention_holds_no_matrix_of_scores() -> None:
    layer = Attention(query_dim=8, heads=1, dim_head=8)
    inputs = {"hidden_states": torch.zeros(1, 4096, 8)}
    assert memory_bytes(layer, inputs) < 4096 * 4096 * FLOAT / 10


def test_more_images_take_more_room_for_activations_only() -> None:
    unet = tiny_unet()
    weights = FLOAT * sum(parameter.numel() for parameter in unet.parameters())
    one, two, three = (
        memory_bytes(unet, {"sample": torch.zeros(n, 1, 8, 8), "timestep": torch.tensor(0)})
        for n in (1, 2, 3)
    )
    assert two - one == three - two > 0
    assert one > weights


def test_half_the_precision_takes_half_the_room() -> None:
    whole = memory_bytes(Chain(nn.Linear(10, 10)), {"x": torch.zeros(2, 10)})
    half = memory_bytes(Chain(nn.Linear(10, 10).half()), {"x": torch.zeros(2, 10).half()})
    assert half == whole / 2
