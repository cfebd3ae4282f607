"""Min-SNR weights of retraining's errors (Hang et al. 2023)."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.training_utils import compute_snr

from diffnas.errors import UserError
from diffnas.families.family import Batch
from diffnas.families.noise import add_noise, check_weighting, min_snr_weights
from diffnas.retrain import Retraining
from diffnas.settings import RetrainSettings
from tests.engine import tiny_data, tiny_teacher

GAMMA, LITTLE = 5.0, 1e-3
TIMESTEPS = torch.tensor([0, 10, 300, 999])
SETTINGS = RetrainSettings(
    steps=1,
    batch_size=4,
    learning_rate=1e-3,
    ema_decay=0.9,
    task_weight=1,
    output_weight=1,
    schedule="none",
)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_errors_count_as_those_of_the_image_by_the_capped_signal_to_noise_ratio(kind: str) -> None:
    scheduler = DDPMScheduler(prediction_type=kind)
    alphas = scheduler.alphas_cumprod[TIMESTEPS]
    images, noise = torch.randn(2, len(TIMESTEPS), 1, 4, 4)
    _, target = add_noise(scheduler.config, images, noise, TIMESTEPS)
    # An image that is off by 1, under the same noisy one.
    off = noise - (alphas / (1 - alphas)).sqrt()[:, None, None, None]
    _, other = add_noise(scheduler.config, images + 1, off, TIMESTEPS)
    errors = (other - target).square().mean((1, 2, 3))
    capped = compute_snr(scheduler, TIMESTEPS).clamp(max=GAMMA)
    weights = min_snr_weights(scheduler.config, TIMESTEPS, GAMMA)
    torch.testing.assert_close(weights * errors, capped, rtol=1e-3, atol=1e-6)


def test_where_no_signal_is_left_nothing_is_divided_by_nothing() -> None:
    config = DDPMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True).config
    assert min_snr_weights(config, torch.tensor([999]), GAMMA).item() == 0


def test_a_flow_has_no_such_weights() -> None:
    config = FlowMatchEulerDiscreteScheduler().config
    check_weighting(config, None)
    with pytest.raises(UserError, match=r"retrain\.snr_gamma = 5: .*leave it out"):
        check_weighting(config, GAMMA)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_batchs_error_is_the_weighted_one_of_its_rows(reduction: Any) -> None:
    weights = torch.tensor([0.5, 0.0, 2.0])
    whole = Batch({}, torch.zeros(3, 1, 2, 2), weights=weights)
    errors = torch.tensor([1.0, 4.0, 9.0])
    made = errors.sqrt()[:, None, None, None].expand(3, 1, 2, 2)
    expected = (weights * errors).mean() if reduction == "mean" else 4 * (weights * errors).sum()
    torch.testing.assert_close(whole.error(made, reduction), expected)
    torch.testing.assert_close(whole.rows(slice(2, 3)).error(made[2:], "mean"), 2 * errors[2])


def test_retraining_weights_the_distance_to_the_data_and_to_the_teachers_prediction() -> None:
    teacher, losses = tiny_teacher(), {}
    torch.manual_seed(0)
    student = type(teacher.denoiser).from_config(teacher.denoiser.config)
    for gamma in (None, 1e9, LITTLE):
        settings = SETTINGS.model_copy(update={"snr_gamma": gamma})
        training = Retraining(student, teacher, tiny_data(), settings, seed=0, precision="fp32")
        noisy = training.noisy(0)
        assert noisy.timesteps is not None
        losses[gamma], _ = training.gradients(training.pairs[0], noisy, 1.0)
        alone = replace(noisy, weights=None)
        weighted = [
            training.gradients(training.pairs[0], alone.rows(slice(i, i + 1)), 1.0)[0]
            for i in range(4)
        ]
        weights = torch.ones(4) if noisy.weights is None else noisy.weights
        for name in ("task", "output"):
            expected = sum(float(w) * row[name] for w, row in zip(weights, weighted, strict=True))
            assert losses[gamma][name] == pytest.approx(expected, rel=1e-4)
    assert losses[1e9] == pytest.approx(losses[None])  # every ratio is below: noise counts alike
    assert losses[LITTLE]["task"] < 0.9 * losses[None]["task"]
