"""Structural pruning with torch-pruning (Fang et al. 2023, arXiv 2301.12900), outer widths too.

Set up so that it can work. Channels compete over the whole model: the published Diff-Pruning takes
the same share of every layer, which norms of few channels a group cannot follow near any budget.
The same places go from every group of a norm, and attention loses whole heads. The time embedding
is left alone: it passes no norm, so its channels, counted one by one where others count by eights,
would go first and save next to nothing (seen: the teacher's 128 down to 19). The share to remove
is the least that meets the MACs, counted afterwards.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch_pruning as tp
from diffusers.models.attention_processor import Attention
from diffusers.models.downsampling import Downsample2D
from diffusers.models.upsampling import Upsample2D
from torch import nn
from torch.nn import functional as F

from diffnas.data import Data, batch
from diffnas.families import Teacher
from diffnas.families.batches import training_batch
from diffnas.families.noise import train_timesteps
from diffnas.rng import generator
from diffnas.student.modeling import layers_on_streams
from diffnas.trunk import Kept, Trunk, named_calls
from rivals import OutOfReachError, Start, folded, macs_of

IMAGES = 64
TIMESTEPS = 100  # gradients are taken at so many of the schedule's timesteps, evenly spread
LEAST_SHARE = 0.05  # Diff-Pruning leaves out timesteps with a smaller share of the largest loss


def magnitude(teacher: Teacher, data: Data, macs: float, seed: int) -> Start:
    """Channels of the smallest norm go."""
    importance = tp.importance.GroupMagnitudeImportance(p=2)
    return pruned(teacher, importance, macs, lambda model: None)


def taylor(teacher: Teacher, data: Data, macs: float, seed: int) -> Start:
    """First-order change of the loss summed over all timesteps (Molchanov et al. 2019)."""
    importance = tp.importance.GroupTaylorImportance(multivariable=True)
    return pruned(teacher, importance, macs, with_gradients(teacher, data, seed, 0.0))


def diff_pruning(teacher: Teacher, data: Data, macs: float, seed: int) -> Start:
    """Taylor without the timesteps whose loss is small (Fang et al. 2023, arXiv 2305.10924)."""
    importance = tp.importance.GroupTaylorImportance(multivariable=False)
    gradients = with_gradients(teacher, data, seed, LEAST_SHARE)
    return pruned(teacher, importance, macs, gradients)


def pruned(
    teacher: Teacher,
    importance: Any,
    macs: float,
    prepare: Callable[[nn.Module], None],
) -> Start:
    """The teacher's denoiser with at most ``macs`` of its MACs."""
    ready = copy.deepcopy(teacher.denoiser).requires_grad_(True)
    prepare(ready)
    limit = macs * macs_of(teacher, teacher.denoiser)

    def smaller(permille: int) -> tuple[nn.Module, Kept] | None:
        return without_share(teacher, ready, importance, permille / 1000)

    def fits(permille: int) -> bool:
        found = smaller(permille)
        return found is not None and macs_of(teacher, found[0]) <= limit

    # From the mildest on: beyond some share torch-pruning leaves layers alone that it would empty.
    coarse = next((share for share in range(10, 1000, 10) if fits(share)), None)
    if coarse is None:
        raise OutOfReachError(f"pruning cannot reach {macs} of the MACs")
    found = smaller(next(share for share in range(coarse - 9, coarse + 1) if fits(share)))
    assert found is not None
    model, kept = found
    model.zero_grad(set_to_none=True)
    model.requires_grad_(False).eval()
    return Start(model, Trunk(model, kept, named_calls(teacher, {path: path for path in kept})))


def without_share(
    teacher: Teacher, ready: nn.Module, importance: Any, share: float
) -> tuple[nn.Module, Kept] | None:
    """A copy without that share of its channels and heads, and what its layers' outputs keep.

    None where a layer would be empty. Outputs are told by the layer's path, not by stream as a
    student's are: those of layers that are never added up are pruned apart.
    """
    model: Any = copy.deepcopy(ready)
    for old, new in zip(ready.parameters(), model.parameters(), strict=True):
        new.grad = None if old.grad is None else old.grad.clone()
    device = next(model.parameters()).device
    attention = [layer for layer in model.modules() if isinstance(layer, Attention)]
    resampling = [m for m in model.modules() if isinstance(m, Upsample2D | Downsample2D)]
    if not all(isinstance(layer.conv, nn.Conv2d) for layer in resampling):
        raise OutOfReachError("pruning is set up for resampling by convolution")
    heads = {
        projection: layer.heads
        for layer in attention
        for projection in (layer.to_q, layer.to_k, layer.to_v)
    }
    size = {layer: layer.inner_dim // layer.heads for layer in attention}
    pruner = tp.pruner.BasePruner(
        model,
        teacher.family.example_inputs(teacher.denoiser, 1, device),
        importance=importance,
        global_pruning=True,
        pruning_ratio=share,
        ignored_layers=[model.conv_out, model.time_embedding],
        in_channel_groups={},  # torch-pruning's own defaults are shared, and keep models alive
        out_channel_groups={},
        num_heads=heads,
        prune_num_heads=True,
        prune_head_dims=False,
        head_pruning_ratio=share,
    )
    kept = prune(pruner, writers(teacher, model))
    for layer in attention:
        layer.inner_dim = layer.inner_kv_dim = layer.to_q.out_features
        layer.heads = layer.sliceable_head_dim = layer.inner_dim // size[layer]
    for layer in resampling:
        layer.channels, layer.out_channels = layer.conv.in_channels, layer.conv.out_channels
    if any(0 in parameter.shape for parameter in model.parameters()):
        return None
    return folded(model), kept


def writers(teacher: Teacher, model: nn.Module) -> dict[str, Any]:
    """Path of each module that writes on a stream -> its last layer, a convolution or linear."""
    assert teacher.family.streams is not None
    ports = teacher.family.streams(teacher.denoiser)
    return {
        path: on.layer
        for path, each in ports.items()
        for on in layers_on_streams(model)
        if each.writes and on.writes and f"{on.path}.".startswith(f"{path}.")
    }


def prune(pruner: Any, layers: Mapping[str, Any]) -> Kept:
    """Prune the pruner's model; the outputs that each of the layers keeps of those it had."""
    kept = {path: torch.arange(len(layer.weight)) for path, layer in layers.items()}
    for group in pruner.step(interactive=True):
        gone = {
            dependency.target.module: places
            for dependency, places in group
            if pruner.DG.is_out_channel_pruning_fn(dependency.handler)
        }
        for path, layer in layers.items():
            left = torch.ones(len(kept[path]), dtype=torch.bool)
            left[gone.get(layer, [])] = False
            kept[path] = kept[path][left]
        group.prune()
    return {path: rows.to(layers[path].weight.device) for path, rows in kept.items()}


def with_gradients(
    teacher: Teacher, data: Data, seed: int, least: float
) -> Callable[[nn.Module], None]:
    """Gives a model the gradients of its loss, summed over timesteps."""

    def prepare(model: nn.Module) -> None:
        family = teacher.family
        random = generator(seed, "pruning", 0)
        images, rows, _ = batch(data, IMAGES, random)
        condition = teacher.condition(data, rows)
        count = train_timesteps(teacher.pipeline.scheduler.config)
        largest = 0.0
        for time in torch.arange(0, count, max(1, count // TIMESTEPS)):
            noisy = training_batch(teacher, images, condition, random, time.expand(len(images)))
            loss = F.mse_loss(family.prediction(model(**noisy.inputs), noisy.size), noisy.target)
            largest = max(largest, loss.item())
            if loss.item() < least * largest:
                break
            loss.backward()

    return prepare
