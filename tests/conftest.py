"""For all tests: one thread each, since models this small lose time to more, and few draws."""

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def fewer():
    """For the whole session: what is made once may be shared by tests of several files."""
    # Here, as the process that hands tests out to others would wait seconds for it, unused.
    from tests.engine import few_draws

    with few_draws():
        yield
