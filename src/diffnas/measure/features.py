"""Feature extractors for Fréchet and kernel distances.

Each is a module from uint8 images (B, 1 or 3, H, W) to features (B, num_features), as
torchmetrics' FrechetInceptionDistance and KernelInceptionDistance call them.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

DIGITS_WEIGHTS = Path(__file__).parents[1] / "assets" / "features" / "digits.safetensors"


def digits_network(num_features: int = 64) -> nn.Sequential:
    """The classifier's body: grey images (B, 1, 8, 8) in [-1, 1] to features (B, num_features)."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.SiLU(),
        nn.Conv2d(32, 64, 3, padding=1, stride=2),
        nn.SiLU(),
        nn.Conv2d(64, 64, 3, padding=1),
        nn.SiLU(),
        nn.Flatten(),
        nn.Linear(64 * 4 * 4, num_features),
    )


class DigitsFeatures(nn.Module):
    """Penultimate layer of a small digits classifier, trained on the seen split only.

    Scaled so that a feature's variance over the seen digits is 1 on average.
    """

    num_features = 64

    def __init__(self, weights: Path | None = DIGITS_WEIGHTS) -> None:
        super().__init__()
        self.network = digits_network(self.num_features)
        if weights is not None:
            from safetensors.torch import load_file

            self.network.load_state_dict(load_file(weights))
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """uint8 (B, 1 or 3, H, W) to (B, 64) in the module's dtype."""
        x = images.to(self.network[0].weight.dtype).mean(dim=1, keepdim=True) / 127.5 - 1
        if x.shape[-2:] != (8, 8):
            x = F.interpolate(x, (8, 8), mode="bicubic", antialias=True).clamp(-1, 1)
        return self.network(x)
