"""For all tests: one thread each, since models this small lose time to more, and few draws."""

import pytest
import torch

from tests.engine import few_draws

torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def fewer():
    """For the whole session: what is made once may be shared by tests of several files."""
    with few_draws():
        yield
