"""For all tests: one thread each, since models this small lose time to more."""

import torch

torch.set_num_threads(1)
