from collections.abc import Iterator

import pytest
import torch

from diffnas.data import Data, load_data


@pytest.fixture(scope="package")
def data() -> Data:
    """All digits."""
    return load_data("digits", size=(8, 8), channels=1)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
