"""Students called and looked at, for tests of what people do with pipelines."""

from typing import Any

import torch


def images(pipeline: Any) -> Any:
    """Of one caption, always the same."""
    pipeline.set_progress_bar_config(disable=True)
    random = torch.Generator().manual_seed(0)
    call = {"num_inference_steps": 2, "output_type": "np", "generator": random}
    return pipeline("a disc", **call).images


def nearly(made: Any, wanted: Any) -> bool:
    """Whether images differ, but by less than a hundredth of their range."""
    assert wanted.std() > 0.1
    return bool(0 < abs(made - wanted).max() < 0.01)


def are_eight_bits(model: Any) -> bool:
    """Whether all of its linear layers are."""
    layers = [layer for layer in model.modules() if isinstance(layer, torch.nn.Linear)]
    return bool(layers) and all(layer.weight.qdata.dtype == torch.int8 for layer in layers)
