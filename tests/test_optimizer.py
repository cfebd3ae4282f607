import pytest
import torch
from torch import nn

from diffnas.errors import RunError
from diffnas.optimizer import Optimizer, diverged, matrices_of


def optimizer(muon=False, **arguments):
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    matrices = [model.weight] if muon else []
    return model, Optimizer(list(model.parameters()), 0.0, matrices=matrices, **arguments)


def step_of(model, optimizer, seed=0, rate=0.01):
    given = torch.randn(4, 3, generator=torch.Generator().manual_seed(seed))
    optimizer.backward(model(given).square().sum())
    optimizer.step(rate, "here")


def test_a_step_uses_the_given_rate_and_clears_gradients():
    model, adamw = optimizer()
    before = model.weight.detach().clone()
    adamw.backward(model(torch.ones(1, 3)).sum())
    adamw.step(0.01, "here")
    torch.testing.assert_close(model.weight.detach(), before - 0.01)  # Adam's first step
    assert model.weight.grad is None


def test_gradients_are_clipped_at_norm_one(monkeypatch):
    model, adamw = optimizer()
    adamw.backward(1e6 * model(torch.ones(1, 3)).sum())
    seen = []
    monkeypatch.setattr(
        adamw.scaler, "step", lambda _: seen.extend(p.grad for p in model.parameters())
    )
    adamw.step(0.01, "here")
    assert torch.cat([gradient.flatten() for gradient in seen]).norm() == pytest.approx(1)


def test_a_gradient_that_is_not_finite_updates_nothing():
    model, adamw = optimizer()
    before = model.weight.detach().clone()
    adamw.backward(model(torch.full((1, 3), torch.inf)).sum())
    with pytest.raises(RunError, match=r"supernet step 3, block x: .*supernet.learning_rate"):
        adamw.step(0.01, "supernet step 3, block x")
    assert torch.equal(model.weight, before)


@pytest.mark.parametrize("muon", [False, True])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("where", ["weight", "bias"])
def test_in_half_precision_such_a_step_is_left_out_and_the_scale_halved(muon, bad, where):
    model, optimizer_ = optimizer(precision="fp16", muon=muon)
    step_of(model, optimizer_)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    scale = optimizer_.scaler.get_scale()
    optimizer_.backward(model(torch.ones(1, 3)).sum())
    model.get_parameter(where).grad[0] = bad
    optimizer_.step(0.01, "here")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert optimizer_.scaler.get_scale() == scale / 2


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_step_without_gradients_is_no_step(precision):
    model, adamw = optimizer(precision=precision)
    before = model.weight.detach().clone()
    adamw.step(0.01, "here")
    assert torch.equal(model.weight, before)


@pytest.mark.parametrize("muon", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_an_optimizers_state_comes_back(precision, muon):
    model, one = optimizer(precision=precision, muon=muon)
    for seed in range(3):
        step_of(model, one, seed)
    other, resumed = optimizer(precision=precision, muon=muon)
    other.load_state_dict(model.state_dict())
    if precision == "fp16":
        one.scaler.update(128.0)
    resumed.restore({name: value.clone() for name, value in one.state().items()})
    assert resumed.scaler.state_dict() == one.scaler.state_dict()
    for seed in range(2):
        step_of(model, one, seed)
        step_of(other, resumed, seed)
    assert torch.equal(other.weight, model.weight)
    assert torch.equal(other.bias, model.bias)


def test_a_divergence_names_the_setting_of_its_stage():
    for where in ("retrain step 3", "supernet step 3, block x"):
        told = str(diverged(where, "fp32"))
        stage = where.partition(" ")[0]
        assert told == f"{where}: the loss is not finite; lower {stage}.learning_rate"


def test_a_divergence_in_half_precision_has_single_as_another_remedy():
    model, adamw = optimizer(precision="bf16")
    adamw.backward(model(torch.full((1, 3), torch.inf)).sum())
    with pytest.raises(RunError, match=r"learning_rate, or use --precision fp32$"):
        adamw.step(0.01, "here")


def test_muon_turns_a_convolutions_gradient_into_a_matrix_of_even_singular_values():
    torch.manual_seed(0)
    model = nn.Conv2d(4, 6, 3)
    optimizer = Optimizer(list(model.parameters()), 0.0, matrices=matrices_of(model))
    before = model.weight.detach().clone()
    optimizer.backward(model(torch.randn(8, 4, 5, 5)).square().sum())
    optimizer.step(0.01, "here")
    change = (model.weight.detach() - before).flatten(1)
    values = torch.linalg.svdvals(change)
    assert values.max() < 2 * values.min()
    # Moonshot's scale: the update's root mean square is 0.2 of the rate, as AdamW's is.
    assert change.square().mean().sqrt() == pytest.approx(0.2 * 0.01, rel=0.3)
    assert model.weight.grad is None


def test_beside_muon_adamw_trains_what_is_no_matrix():
    model, both = optimizer(muon=True)
    before = model.bias.detach().clone()
    step_of(model, both)
    assert (model.bias.detach() - before).abs() == pytest.approx(0.01)  # Adam's first step


def test_weights_of_linear_layers_and_convolutions_are_matrices_once_each():
    model = nn.ModuleList(
        [nn.Linear(2, 2), nn.Conv2d(2, 2, 3), nn.Embedding(3, 2), nn.GroupNorm(1, 2)]
    )
    model.append(nn.Linear(2, 2))
    model[-1].weight = model[0].weight
    found = matrices_of(model)
    assert [id(each) for each in found] == [id(model[0].weight), id(model[1].weight)]
