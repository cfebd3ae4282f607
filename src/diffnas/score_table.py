"""The score table of a whole denoiser, written and read."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from diffnas.architecture import (
    BlockScores,
    Scores,
    Space,
    space_from_json,
    space_to_json,
    subnet_at,
)
from diffnas.artifacts import check_format, save_tensors
from diffnas.checkpoint import load_state


def save(scores: Scores, path: Path, fingerprint: str) -> None:
    """Write the table as safetensors: ``<block>.choices``, ``.losses``, ``.macs``, ``.params``."""
    tensors: dict[str, Tensor] = {}
    for block in scores.space.blocks:
        table = scores.blocks[block.name]
        costs = [block.cost_of(subnet_at(block, choice)) for choice in table.choices]
        tensors |= {
            f"{block.name}.choices": torch.from_numpy(table.choices),
            f"{block.name}.losses": torch.from_numpy(table.losses),
            f"{block.name}.macs": torch.tensor([cost.macs for cost in costs]),
            f"{block.name}.params": torch.tensor([cost.params for cost in costs]),
        }
    save_tensors(
        path,
        tensors,
        fingerprint,
        seconds=f"{scores.seconds:.1f}",
        search=scores.search,
        space=json.dumps(space_to_json(scores.space)),
    )


def read(path: Path) -> Scores | None:
    """The table in a file, with the space it was made for; None if there is no whole one.

    Raises:
        UserError: a newer DiffNAS wrote it.
    """
    tensors, meta = load_state(path) or ({}, {})
    check_format(path, meta)
    if "space" not in meta:
        return None
    found = from_tensors(tensors, space_from_json(json.loads(meta["space"])))
    return replace(found, search=meta.get("search", ""))


def from_tensors(tensors: Mapping[str, Tensor], space: Space) -> Scores:
    """The table that :func:`save` wrote."""
    return Scores(
        space,
        {
            block.name: BlockScores(
                tensors[f"{block.name}.choices"].numpy(), tensors[f"{block.name}.losses"].numpy()
            )
            for block in space.blocks
        },
    )
