import pytest
from rank import architectures, correlation, taus
from scipy.stats import kendalltau

from diffnas.select.table import make_table
from tests.select.tables import three_blocks


def test_the_architectures_are_those_of_nearly_the_budgets_cost():
    table = make_table(three_blocks(), {"macs": 0.5})
    costs = [table.total("macs", rows) for rows in architectures(table, 0.5, 8, seed=0)]
    assert all(0.45 < cost <= 0.5 for cost in costs)
    assert costs == sorted(costs, reverse=True)


def test_a_score_that_orders_as_quality_does_has_tau_1():
    found = correlation([1, 2, 3, 4, 5], [10, 20, 30, 40, 60])
    assert found["tau"] == 1
    assert found["low"] == 1


def test_an_interval_holds_its_tau():
    found = correlation([1, 2, 3, 4, 5, 6], [2, 1, 4, 3, 6, 5])
    assert found["low"] < found["tau"] < found["high"]


def test_scores_are_compared_with_the_mean_of_the_seeds_and_seeds_with_each_other():
    qualities = [(1.0, 3.0), (2.0, 2.5), (4.0, 1.0)]  # means rise, the second seed falls
    rows = [
        {
            "scores": {"good": float(index)},
            "qualities": [{"denoising_loss": q, "frechet_distance": q} for q in seeds],
        }
        for index, seeds in enumerate(qualities)
    ]
    found = taus(rows)["denoising_loss"]
    assert found["good"]["tau"] == pytest.approx(1)
    assert found["between two retraining seeds"]["tau"] == pytest.approx(-1)


def test_tau_counts_ties_as_scipy_does():
    scores, quality = [1.0, 2.0, 2.0, 5.0, 4.0], [3.0, 3.0, 1.0, 7.0, 9.0]
    expected = kendalltau(scores, quality).statistic
    assert correlation(scores, quality)["tau"] == pytest.approx(expected, abs=5e-4)
