"""The trunk, the streams that layers pass on to each other, and a teacher with a narrower one.

A stream is the residual stream of a resolution level, with its skips. A narrower trunk keeps the
most important norm groups of each, everywhere the same number, so that every group's statistics
stay the teacher's where a norm reads one stream. The blocks of the narrowed teacher are searched
like the teacher's own: they are given the teacher's calls, cut to the channels that are kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from diffnas.blocks import Call, recorded
from diffnas.data import Data
from diffnas.families import Batch, Ports, Teacher
from diffnas.families.batches import random_batch
from diffnas.measure.meta import copied_to, to_meta
from diffnas.progress import Progress
from diffnas.rng import generator
from diffnas.student.modeling import OnStream, layers_on_streams, narrow_trunk, trunk_groups

Kept = dict[str, Tensor]
"""Stream -> indices of the channels kept, in their order."""

IMAGES = 1280
"""That the importance of channels is a mean over."""

AT_ONCE = 2**40
"""MACs of a forward pass up to which several images go through the whole teacher together."""


@dataclass(frozen=True)
class Trunk:
    """A narrowed teacher, on the CPU, and what is left of the teacher's calls of its blocks.

    ``streams``: block -> its call with the name of a stream in the place of each tensor that is
    one, and None in the place of others.
    """

    denoiser: nn.Module
    kept: Kept
    streams: Mapping[str, Call]

    def cut(self, calls: Mapping[str, Call]) -> dict[str, Call]:
        """The same calls with the channels that are kept; tensors that were one stay one."""
        return {name: self._cut(call, self.streams[name]) for name, call in calls.items()}

    def filled(self, name: str, call: Call, made: Call) -> Any:
        """The teacher's outputs of a block, with what its narrowed twin gave where kept."""
        return self._filled(call.output, made.output, self.streams[name].output, {})

    def _filled(self, whole: Any, part: Any, stream: Any, done: dict[Any, Tensor]) -> Any:
        if isinstance(whole, Tensor):
            if stream is None:
                return part
            # Of both: a left-out layer hands on one tensor in two places of the teacher's.
            key = id(whole), id(part)
            if key not in done:
                done[key] = whole.index_copy(1, self.kept[stream], part)
            return done[key]
        if isinstance(whole, Mapping):
            return {
                key: self._filled(each, part[key], stream[key], done) for key, each in whole.items()
            }
        if isinstance(whole, list | tuple):
            parts = zip(whole, part, stream, strict=True)
            return type(whole)(self._filled(*each, done) for each in parts)
        return part

    def _cut(self, call: Call, streams: Call) -> Call:
        done: dict[int, Tensor] = {}
        return Call(
            self._kept(call.args, streams.args, done),
            self._kept(call.kwargs, streams.kwargs, done),
            self._kept(call.output, streams.output, done),
        )

    def _kept(self, value: Any, stream: Any, done: dict[int, Tensor]) -> Any:
        if isinstance(value, Tensor):
            if stream is None:
                return value
            if id(value) not in done:
                done[id(value)] = value.index_select(1, self.kept[stream])
            return done[id(value)]
        if isinstance(value, Mapping):
            return {key: self._kept(each, stream[key], done) for key, each in value.items()}
        if isinstance(value, list | tuple):
            pairs = zip(value, stream, strict=True)
            return type(value)(self._kept(*each, done) for each in pairs)
        return value


def make_trunk(teacher: Teacher, kept: Kept) -> Trunk:
    """The teacher with those channels of its streams, its weights cut to them."""
    assert teacher.family.streams is not None  # else no space has a trunk
    ports = teacher.family.streams(teacher.denoiser)
    return Trunk(
        narrowed(teacher.denoiser, ports, kept),
        {stream: rows.to(teacher.device) for stream, rows in kept.items()},
        named_calls(teacher, {path: each.writes for path, each in ports.items()}),
    )


def named_calls(teacher: Teacher, names: Mapping[str, str | None]) -> dict[str, Call]:
    """Block -> its call with names in the place of tensors: what ``names`` has for their maker.

    ``names``: path of a module -> the name of what it gives. Tensors of others are None.
    """
    meta = to_meta(teacher.denoiser)
    inputs = teacher.family.example_inputs(meta, 1, torch.device("meta"))
    blocks = teacher.family.block_names(meta)
    with torch.no_grad(), recorded(meta, [*names, *blocks]) as calls:
        meta(**inputs)
    made = {id(calls[path].made): name for path, name in names.items()}
    return {block: _named(calls[block], made) for block in blocks}


def _named(call: Call, made: Mapping[int, str | None]) -> Call:
    def walk(node: Any) -> Any:
        if isinstance(node, Mapping):
            return {key: walk(each) for key, each in node.items()}
        if isinstance(node, list | tuple):
            return tuple(map(walk, node))  # not of its type: a torch.Size holds numbers alone
        return made.get(id(node))

    return Call(walk(call.args), walk(call.kwargs), walk(call.output))


@torch.no_grad()
def narrowed(denoiser: Any, ports: Mapping[str, Ports], kept: Kept) -> nn.Module:
    """A copy on the CPU with those channels of its streams; a norm's are those it reads."""
    new = copied_to(denoiser, torch.device("cpu"))
    old_widths = widths(denoiser, ports)
    of = trunk_groups(denoiser)
    stream, rows = next(iter(kept.items()))
    narrow_trunk(new, len(rows) * of // old_widths[stream], of)
    for on in layers_on_streams(new):
        old = on._replace(layer=denoiser.get_submodule(on.path))
        weight, bias = cut_weights(old, ports, kept, old_widths)
        on.layer.weight.copy_(weight)
        if bias is not None:
            on.layer.bias.copy_(bias)
    return new.eval().requires_grad_(False)


def cut_weights(
    on: OnStream, ports: Mapping[str, Ports], kept: Kept, old_widths: Mapping[str, int]
) -> tuple[Tensor, Tensor | None]:
    """A layer's weight and bias with those channels of the streams that it reads and writes."""
    mine = ports[next(name for name in _upwards(on.module, on.path) if name in ports)]
    read, start = [], 0
    for name in mine.reads:
        read.append(kept[name] + start)
        start += old_widths[name]
    weight, bias = on.layer.weight, on.layer.bias
    if isinstance(on.layer, nn.GroupNorm):
        return weight[torch.cat(read)], bias[torch.cat(read)]
    if on.writes:
        weight = weight[kept[str(mine.writes)]]
        bias = bias if bias is None else bias[kept[str(mine.writes)]]
    if on.reads:
        weight = weight[:, torch.cat(read)]
    return weight, bias


def _upwards(module: str, path: str) -> list[str]:
    """The layer's own path, its module's, and those of all that this is in."""
    parts = module.split(".")
    return [path, *(".".join(parts[:count]) for count in range(len(parts), 0, -1))]


def widths(denoiser: nn.Module, ports: Mapping[str, Ports]) -> dict[str, int]:
    """Channels of every stream."""
    found: dict[str, int] = {}
    for layer in layers_on_streams(denoiser):
        writes = next((ports[n].writes for n in _upwards(*layer[:2]) if n in ports), None)
        if layer.writes and writes is not None:
            found[writes] = len(layer.layer.weight)
    return found


def ranked_at_once(macs: int, batch_size: int) -> int:
    """Images in a batch of :func:`kept_channels`, for a teacher of so many MACs.

    Its graph is the only one of the whole teacher with all that lies between its layers: in the
    batches that blocks are trained in it would hold more memory than any training (GiB an image, of
    Stable Diffusion).
    """
    return max(1, min(batch_size, AT_ONCE // macs))


def kept_channels(
    teacher: Teacher,
    data: Data,
    groups: int,
    *,
    batch_size: int,
    seed: int,
    progress: Progress | None = None,
) -> Kept:
    """The channels of the most important norm groups of every stream, in their order."""
    ranked = ranked_channels(teacher, data, batch_size=batch_size, seed=seed, progress=progress)
    return {stream: rows[:groups].flatten().sort().values for stream, rows in ranked.items()}


def ranked_channels(
    teacher: Teacher,
    data: Data,
    *,
    batch_size: int,
    seed: int,
    progress: Progress | None = None,
) -> Kept:
    """Stream -> its channels by norm group, (groups, channels), the most important group first.

    A group's importance is the Fisher information of leaving its channels out, one by one:
    sum over channels and over all places where the stream is written, of the mean over images of
    (sum over pixels of g * x)^2, g the gradient of the denoising loss (Theis et al., arXiv
    1801.05787; Molchanov et al., arXiv 1906.10771).
    """
    of, ranked = trunk_groups(teacher.denoiser), {}
    shown = progress or Progress()
    for stream, channels in _importance(teacher, data, batch_size, seed, shown).items():
        order = channels.unflatten(0, (of, -1)).sum(1).argsort(descending=True, stable=True)
        ranked[stream] = torch.arange(len(channels)).unflatten(0, (of, -1))[order]
    return ranked


@torch.enable_grad()
def _importance(
    teacher: Teacher, data: Data, batch_size: int, seed: int, progress: Progress
) -> dict[str, Tensor]:
    """Stream -> (channels,), on the CPU."""
    denoiser = teacher.denoiser
    assert teacher.family.streams is not None
    ports = teacher.family.streams(denoiser)
    writers = [path for path, each in ports.items() if each.writes is not None]
    first = [denoiser.get_submodule(path) for path in writers if not ports[path].reads]
    # Weights are frozen; from here on every stream has a gradient.
    handles = [
        module.register_forward_hook(lambda _, __, output: output.requires_grad_())
        for module in first
    ]
    random = generator(seed, "trunk", 0)
    found: dict[str, Tensor] = {}
    try:
        count = -(-IMAGES // batch_size)
        progress.start("trunk", count)
        for number in range(count):
            noisy = random_batch(teacher, data, batch_size, random)
            for path, each in _of_batch(teacher, noisy, writers).items():
                name = str(ports[path].writes)
                found[name] = found[name] + each if name in found else each
            progress.update(number + 1)
        progress.stop()
    finally:
        for handle in handles:
            handle.remove()
    return found


def _of_batch(teacher: Teacher, noisy: Batch, writers: list[str]) -> dict[str, Tensor]:
    """Path of what writes on a stream -> (channels,), on the CPU. Nothing of the graph is left."""
    denoiser, family = teacher.denoiser, teacher.family
    with recorded(denoiser, writers) as calls:
        given = family.prediction(denoiser(**noisy.inputs), noisy.size)
    # A layer that was left out hands on what it was given: the same place, so once.
    places = {id(calls[path].made): path for path in reversed(writers)}
    streams = [calls[path].made for path in places.values()]
    gradients = torch.autograd.grad(noisy.error(given, "sum"), streams)
    return {
        path: (g * x).detach().sum((2, 3)).square().sum(0).cpu()
        for path, x, g in zip(places.values(), streams, gradients, strict=True)
    }
