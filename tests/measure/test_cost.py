import torch
from diffusers import UNet2DModel
from diffusers.models.attention_processor import Attention, AttnProcessor
from torch import nn

from diffnas.measure.cost import call_cost
from tests.models import tiny_unet


def inputs(size: int = 8, channels: int = 1) -> dict[str, torch.Tensor]:
    return {
        "sample": torch.zeros(1, channels, size, size),
        "timestep": torch.zeros(1, dtype=torch.long),
    }


def test_ddpm_cifar10_costs_what_is_published() -> None:
    with torch.device("meta"):
        denoiser = UNet2DModel(
            sample_size=32,
            layers_per_block=2,
            block_out_channels=(128, 256, 256, 256),
            down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=None,
            downsample_padding=0,
        )
    cost = call_cost(denoiser, kwargs=inputs(32, 3))
    assert cost.params == 35_746_307
    assert round(cost.macs / 1e9, 4) == 6.2219
    assert round(cost.macs_without_attention / 1e9, 4) == 6.0540


def test_a_linear_layer_costs_rows_times_columns() -> None:
    cost = call_cost(nn.Linear(3, 5), (torch.zeros(2, 3),), {})
    assert (cost.params, cost.macs, cost.macs_without_attention) == (20, 30, 30)


def test_a_bias_free_layer_on_a_transposed_sequence_is_not_taken_for_attention() -> None:
    cost = call_cost(nn.Linear(3, 5, bias=False), (torch.zeros(2, 3, 4).transpose(1, 2),), {})
    assert cost.macs_without_attention == cost.macs == 2 * 4 * 3 * 5


def test_shared_parameters_count_once() -> None:
    layer = nn.Linear(4, 4)
    assert call_cost(nn.Sequential(layer, layer), (torch.zeros(1, 4),), {}).params == 20


def test_fused_and_plain_attention_cost_the_same() -> None:
    fused, plain = tiny_unet(), tiny_unet()
    for module in plain.modules():
        if isinstance(module, Attention):
            module.set_processor(AttnProcessor())
    assert call_cost(fused, kwargs=inputs()) == call_cost(plain, kwargs=inputs())


def test_counting_leaves_the_module_where_it_is() -> None:
    denoiser = tiny_unet()
    before = {name: value.clone() for name, value in denoiser.state_dict().items()}
    call_cost(denoiser, kwargs=inputs())
    assert all(torch.equal(before[name], value) for name, value in denoiser.state_dict().items())
