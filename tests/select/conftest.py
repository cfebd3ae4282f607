import pytest

from diffnas.select import evolution


@pytest.fixture(autouse=True)
def _few_generations(monkeypatch):
    # Enough for the made-up tables' thousand architectures.
    monkeypatch.setattr(evolution, "GENERATIONS", 30)
