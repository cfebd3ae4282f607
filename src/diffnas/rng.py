"""What is random follows from (seed, stage, step), so a resumed run is the run."""

import zlib

import torch


def generator(seed: int, stage: str, step: int) -> torch.Generator:
    """A CPU generator that depends on nothing but its arguments."""
    # torch's CPU generator uses only the lowest 32 bits of its seed.
    return torch.Generator().manual_seed(zlib.crc32(f"{seed}/{stage}/{step}".encode()))
