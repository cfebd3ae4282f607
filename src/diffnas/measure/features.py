"""Feature extractors for Fréchet and kernel distances.

Each is a module from uint8 images (B, 1 or 3, H, W) to features (B, num_features), as
torchmetrics' FrechetInceptionDistance and KernelInceptionDistance call them.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.image.fid import FrechetInceptionDistance

from diffnas.errors import UserError

DIGITS_WEIGHTS = Path(__file__).parents[1] / "assets" / "features" / "digits.safetensors"


def digits_network(num_features: int = 64) -> nn.Sequential:
    """Build the classifier's body: (B, 1, 8, 8) in [-1, 1] to features (B, num_features)."""
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

    def __init__(self, weights: Path = DIGITS_WEIGHTS) -> None:
        super().__init__()
        self.network = digits_network(self.num_features)
        self.network.load_state_dict(load_file(weights))
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """uint8 (B, 1 or 3, H, W) to (B, 64) in the module's dtype."""
        dtype = next(self.parameters()).dtype
        x = images.to(dtype).mean(dim=1, keepdim=True) / 127.5 - 1
        if x.shape[-2:] != (8, 8):
            x = F.interpolate(x, (8, 8), mode="bicubic", antialias=True).clamp(-1, 1)
        features: Tensor = self.network(x)
        return features


# Luminance and two opponent colours (red-green, blue-yellow) from RGB, in rows.
OPPONENT = ((0.299, 0.587, 0.114), (0.5, -0.5, 0.0), (-0.25, -0.25, 0.5))


class PatchFeatures(nn.Module):
    """Fixed statistics of local structure and colour: the fallback without downloads.

    In the spirit of wavelet texture statistics (Portilla and Simoncelli, 2000) and of scattering
    (Bruna and Mallat, 2013): nothing is learnt and nothing is random. Per scale, the mean and the
    standard deviation of the responses to derivative filters in four orientations and to a
    Laplacian; the mean of the responses' own derivatives (how edges are arranged) and of colour
    edges. Beside them a coarse layout of brightness and colour. It tells blur, noise, colour
    shifts and broken structure within one experiment; its numbers are no Inception distances.
    """

    num_features = 97
    scales = 3
    gain = 4.0  # responses are small beside brightness; this brings them to the same order

    def __init__(self) -> None:
        super().__init__()
        smooth, slope = torch.tensor([1.0, 2.0, 1.0]) / 4, torch.tensor([-1.0, 0.0, 1.0]) / 2
        x, y = torch.outer(smooth, slope), torch.outer(slope, smooth)
        blob = torch.outer(smooth, smooth)
        blob[1, 1] -= 1
        filters = torch.stack([x, y, (x + y) / 2**0.5, (x - y) / 2**0.5, blob])
        self.register_buffer("filters", filters[:, None])  # (5, 1, 3, 3)
        self.register_buffer("opponent", torch.tensor(OPPONENT)[:, :, None, None])

    def forward(self, images: Tensor) -> Tensor:
        """uint8 (B, 1 or 3, H, W), sides of at least 8, to (B, 97) in the module's dtype."""
        filters, opponent = self.get_buffer("filters"), self.get_buffer("opponent")
        x = images.to(filters.dtype) / 127.5 - 1
        x = F.conv2d(x.expand(-1, 3, -1, -1), opponent)  # (B, 3, H, W)
        mean = F.adaptive_avg_pool2d(x, 2)
        variance = F.adaptive_avg_pool2d(x.square(), 2) - mean.square()
        layout = [  # 16 + 12 + 12 features
            F.adaptive_avg_pool2d(x[:, :1], 4).flatten(1),
            mean.flatten(1),
            variance.clamp_min(0).sqrt().flatten(1),
        ]
        structure = []  # 19 features a scale
        for scale in range(self.scales):
            x = F.avg_pool2d(x, 2) if scale else x
            edges = _respond(x[:, :1], filters)
            arranged = _respond(edges[:, :4].mean(dim=1, keepdim=True), filters)
            coloured = _respond(x[:, 1:], filters[:2])
            structure += [maps.mean(dim=(2, 3)) for maps in (edges, arranged, coloured)]
            structure += [edges.std(dim=(2, 3), unbiased=False)]
        return torch.cat([*layout, self.gain * torch.cat(structure, dim=1)], dim=1)


def _respond(x: Tensor, filters: Tensor) -> Tensor:
    """|x * filter| for every channel and filter: (B, C, h, w) to (B, C · filters, h, w)."""
    batch, _, height, width = x.shape
    padded = F.pad(x.reshape(-1, 1, height, width), (1, 1, 1, 1), mode="replicate")
    return F.conv2d(padded, filters).abs().reshape(batch, -1, height, width)


def auto_features(data: str) -> str:
    """Resolve the name 'auto', given the data's name."""
    if data == "digits":
        return "digits"
    return "patches" if importlib.util.find_spec("torch_fidelity") is None else "inception"


@dataclass(frozen=True)
class Features:
    """How many features an image has, of what, and what makes their extractor."""

    count: int
    of: str
    extractor: Callable[[], nn.Module]

    @property
    def words(self) -> str:
        """For reports."""
        return f"{self.count} {self.of}"

    @property
    def least_images(self) -> int:
        """Of how many images a Fréchet distance by these features needs.

        With no more images than features the covariances are singular and the distance is noise.
        """
        return 1 + self.count


FEATURES = {
    "digits": Features(
        DigitsFeatures.num_features, "features of a digits classifier", DigitsFeatures
    ),
    "patches": Features(PatchFeatures.num_features, "fixed patch statistics", PatchFeatures),
    "inception": Features(
        2048, "features of Inception v3", lambda: FrechetInceptionDistance(feature=2048).inception
    ),
}


def features(name: str) -> Features:
    """The features of a name, which is never 'auto'.

    Raises:
        UserError: the name is unknown, or Inception's package is not there.
    """
    if name not in FEATURES:
        raise UserError(f"features: {name!r} is not known; choose one of {', '.join(FEATURES)}")
    if name == "inception" and importlib.util.find_spec("torch_fidelity") is None:
        raise UserError(
            "features: 'inception' needs torch-fidelity; install DiffNAS with its extra 'fid', "
            "or choose 'patches'"
        )
    return FEATURES[name]
