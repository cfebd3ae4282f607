"""Numbers as people read them."""

import pytest

from diffnas.figures import count, duration, figure, significant, size


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        (count, 999, "999"),
        (count, 1000, "1.00 k"),
        (significant, 99.96, "100"),
        (significant, 0.05, "0.0500"),
        (size, 4096, "4 096"),
        (size, 2 * 10**17, "2e+17"),
        (size, 3 * 10**400, "3e+400"),
        (duration, 4.2, "4 s"),
        (duration, 59.7, "1 min"),
        (duration, 3599.0, "1 h 00 min"),
        (duration, 7500.0, "2 h 05 min"),
    ],
)
def test_numbers_of_any_size_stay_short(function, value, text):
    assert function(value) == text


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("macs", 17.3e6, "17.3 M"),
        ("macs", 3.1e9, "3.10 G"),
        ("macs", 2.5e12, "2.50 T"),
        ("params", 950, "950"),
        ("latency", 12.14, "12.1 ms"),
        ("latency_ms", 12.14, "12.1 ms"),
        ("memory", 34 * 2**20, "34.0 MiB"),
        ("memory_bytes", 2**31, "2.00 GiB"),
        ("denoising_loss", 0.0421, "0.0421"),
    ],
)
def test_a_budget_and_a_measure_have_the_same_units(key, value, text):
    assert figure(key, value) == text
