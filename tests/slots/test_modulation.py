"""What timestep and condition tell a transformer layer's norms, of lower rank."""

import pytest
import torch
from diffusers.models.attention import BasicTransformerBlock, JointTransformerBlock
from diffusers.models.transformers.transformer_flux import FluxSingleTransformerBlock

from diffnas.families.dit import FAMILY
from diffnas.settings import SpaceSettings
from diffnas.slots import joint, modulation, single
from diffnas.space import make_space, smallest_cost
from diffnas.student.modeling import edit_module, modulated
from tests.models import tiny_dit


def layer(**overrides):
    torch.manual_seed(0)
    return JointTransformerBlock(16, 2, 8, **overrides).eval()


def dit():
    torch.manual_seed(0)
    return BasicTransformerBlock(16, 2, 8, norm_type="ada_norm_zero", num_embeds_ada_norm=4).eval()


@pytest.mark.parametrize(
    ("made", "norms"),
    [
        (layer(), ["norm1", "norm1_context"]),
        (layer(context_pre_only=True), ["norm1", "norm1_context"]),
        (layer(use_dual_attention=True), ["norm1", "norm1_context"]),
        (FluxSingleTransformerBlock(16, 2, 8), ["norm"]),
        (dit(), ["norm1"]),
        (BasicTransformerBlock(16, 2, 8), []),
    ],
)
def test_norms_with_a_projection_are_found(made, norms):
    assert modulated(made) == norms


def test_factors_are_the_nearest_product_of_their_rank():
    torch.manual_seed(0)
    weight = torch.randn(12, 5)
    inward, outward = modulation.factored(weight, 3)
    left, values, right = torch.linalg.svd(weight, full_matrices=False)
    torch.testing.assert_close(outward @ inward, left[:, :3] @ values[:3].diag() @ right[:3])


def test_the_first_components_are_the_most_important_ones():
    torch.manual_seed(0)
    weight = torch.randn(12, 5)
    inward, outward = modulation.factored(weight, 4)
    fewer = modulation.factored(weight, 2)
    torch.testing.assert_close(outward[:, :2] @ inward[:2], fewer[1] @ fewer[0])


def test_a_weight_of_zeros_stays_one():
    inward, outward = modulation.factored(torch.zeros(12, 5), 2)
    assert torch.equal(outward @ inward, torch.zeros(12, 5))


@torch.no_grad()
@pytest.mark.parametrize("kind", [joint, single])
def test_an_option_of_the_weights_own_rank_is_the_teachers(kind):
    made = layer() if kind is joint else FluxSingleTransformerBlock(16, 2, 8).eval()
    for norm in map(made.get_submodule, modulated(made)):
        weight = norm.linear.weight
        weight.copy_(torch.randn(len(weight), 4) @ torch.randn(4, 16) / 8)
    edit = {"kind": kind.KIND, "modulation": 4}
    less = edit_module(made, edit)
    less.load_state_dict(kind.SharedWeights(made, [None, edit]).weights(edit))
    given = (torch.randn(2, 4, 16), torch.randn(2, 3, 16), torch.randn(2, 16))
    for one, other in zip(less(*given), made(*given), strict=True):
        torch.testing.assert_close(one, other)


def test_ranks_that_save_nothing_are_no_options():
    assert modulation.ranks(layer(), SpaceSettings(modulation_ranks=(0.95, 0.5))) == [8]
    assert modulation.ranks(layer(), SpaceSettings(modulation_ranks=())) == []
    assert modulation.ranks(layer(), SpaceSettings(preset="stock")) == []
    assert modulation.ranks(BasicTransformerBlock(16, 2, 8), SpaceSettings()) == []


def test_a_factored_projection_is_not_factored_again():
    less = edit_module(layer(), {"kind": "joint", "modulation": 4})
    assert modulated(less) == []
    assert modulation.ranks(less, SpaceSettings()) == []


def test_a_class_embedding_in_a_norm_stays():
    made, edit = dit(), {"kind": "transformer", "modulation": 4}
    less = edit_module(made, edit)
    assert less.norm1.linear[0].weight.shape == (4, 16)
    wanted = made.norm1.emb.class_embedder.embedding_table.weight
    assert torch.equal(less.norm1.emb.class_embedder.embedding_table.weight, wanted)


def test_it_saves_parameters_and_hardly_any_macs():
    only = SpaceSettings(attention_heads=(), feed_forward_widths=(), transformer_skip=False)
    pipeline = tiny_dit(attention_head_dim=32)
    space = make_space(pipeline.transformer, FAMILY, only)
    least = smallest_cost(space)
    assert least.params < 0.9 * space.teacher.params
    assert least.macs > 0.95 * space.teacher.macs
