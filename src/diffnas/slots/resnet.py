"""A ResNet layer: inner width in whole norm groups, kernel size, left out, or dropped."""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from diffnas.architecture import TEACHER, Edit
from diffnas.settings import SpaceSettings

KIND = "resnet"


def matches(module: Any) -> bool:
    """Whether this slot understands the module."""
    return (
        type(module) is ResnetBlock2D
        and module.time_embedding_norm in ("default", "scale_shift")
        # A student compressed again may have them factored.
        and all(
            isinstance(conv, nn.Conv2d) and conv.kernel_size == (3, 3)
            for conv in (module.conv1, module.conv2)
        )
    )


def edits(layer: ResnetBlock2D, settings: SpaceSettings) -> Iterator[tuple[str, Edit | None]]:
    """Options by name.

    Widths are whole norm groups, so that each group's statistics stay the teacher's; other kernels
    come at the teacher's width.
    """
    yield TEACHER, None
    channels, groups = layer.norm2.num_channels, layer.norm2.num_groups
    size = channels // groups
    if settings.preset == "full":
        seen = {groups}
        for ratio in sorted(settings.resnet_widths, reverse=True):
            kept = max(1, round(groups * ratio))
            while kept != groups and kept * size % settings.multiple_of:
                kept += 1
            if kept not in seen:
                seen.add(kept)
                width = kept * size
                yield (
                    f"width={width}",
                    {"kind": KIND, "width": width, "groups": kept, "kernel": 3},
                )
    if settings.preset in ("full", "paper"):
        kernels = (1, 5) if settings.preset == "paper" else settings.resnet_kernels
        for kernel in dict.fromkeys(kernels):
            if kernel != 3:
                yield (
                    f"kernel={kernel}",
                    {"kind": KIND, "width": channels, "groups": groups, "kernel": kernel},
                )
    if settings.preset == "stock":
        # A config leaves a layer out together with its shortcut.
        shortcut: Any = layer.conv_shortcut
        if shortcut is None:
            yield "skip", {"kind": "skip"}
        elif shortcut.in_channels > shortcut.out_channels:
            yield "drop", {"kind": "drop"}
    elif settings.preset == "full" and settings.resnet_skip:
        yield "skip", {"kind": "skip"}


class SharedWeights(nn.Module):
    """One set of weights for all options: the first k channels are the k most important ones.

    A wider option's further channels copy these, and start unread, so that its function is the
    teacher's (Net2Net's widening, arXiv 1511.05641, with zeros for its halves). Other kernels have
    weights of their own, started from the teacher's: sharing the centre of the 3x3 kernel would
    disturb the teacher's own option.
    """

    def __init__(self, layer: ResnetBlock2D, options: list[Edit | None]) -> None:
        super().__init__()
        self.layer = _ordered(layer)
        self.width = layer.norm2.num_channels
        edited = [edit for edit in options if edit and edit["kind"] == KIND]
        kernels = {edit["kernel"] for edit in edited} - {3}
        self.convs = nn.ModuleDict(
            {
                str(kernel): nn.ModuleList(
                    [_resized(self.layer.conv1, kernel), _resized(self.layer.conv2, kernel)]
                )
                for kernel in sorted(kernels)
            }
        )
        _widen(self.layer, max([self.width, *(edit["width"] for edit in edited)]))

    def weights(self, edit: Edit | None) -> dict[str, Tensor]:
        """Views into the shared weights, named as in the option's plain module."""
        own = dict(self.layer.named_parameters())
        if edit is not None and edit["kind"] == "drop":
            return {}
        if edit is not None and edit["kind"] == "skip":
            return {name: value for name, value in own.items() if name.startswith("conv_shortcut.")}
        width, kernel = (self.width, 3) if edit is None else (edit["width"], edit["kernel"])
        for name in ("conv1.bias", "norm2.weight", "norm2.bias"):
            own[name] = own[name][:width]
        if self.layer.time_emb_proj is not None:
            for name in ("time_emb_proj.weight", "time_emb_proj.bias"):
                own[name] = _by_part(self.layer, own[name])[:, :width].flatten(0, 1)
        if kernel != 3:
            own["conv1.weight"], own["conv2.weight"] = self.convs[str(kernel)].parameters()
        own["conv1.weight"] = own["conv1.weight"][:width]
        own["conv2.weight"] = own["conv2.weight"][:, :width]
        return own


def _by_part(layer: ResnetBlock2D, rows: Tensor) -> Tensor:
    """Rows of the time projection, (parts, channels, ...): shifts alone, or scales and shifts."""
    return rows.unflatten(0, (2 if layer.time_embedding_norm == "scale_shift" else 1, -1))


@torch.no_grad()
def _widen(layer: ResnetBlock2D, width: int) -> None:
    """Further inner channels, copies of the first ones, which nothing reads yet."""
    old = layer.norm2.num_channels
    if width == old:
        return
    channels = torch.arange(width, device=layer.conv1.weight.device) % old
    for name in ("conv1.weight", "conv1.bias", "norm2.weight", "norm2.bias"):
        _replace(layer, name, layer.get_parameter(name)[channels])
    if layer.time_emb_proj is not None:
        for name in ("time_emb_proj.weight", "time_emb_proj.bias"):
            rows = _by_part(layer, layer.get_parameter(name))[:, channels]
            _replace(layer, name, rows.flatten(0, 1))
    reads = layer.conv2.weight[:, channels].clone()
    reads[:, old:] = 0
    _replace(layer, "conv2.weight", reads)


def _replace(layer: nn.Module, name: str, value: Tensor) -> None:
    parent, _, own = name.rpartition(".")
    setattr(layer.get_submodule(parent), own, nn.Parameter(value))


def importance(layer: ResnetBlock2D) -> Tensor:
    """Of its inner channels (C,): |norm2.weight| * ||conv2's weights that read it||.

    It is what a channel adds to the output, its activation having unit variance after the norm.
    """
    return layer.norm2.weight.abs() * layer.conv2.weight.square().sum(dim=(0, 2, 3)).sqrt()


@torch.no_grad()
def _ordered(layer: ResnetBlock2D) -> ResnetBlock2D:
    """The same function with its inner norm groups sorted, most important first."""
    new = copy.deepcopy(layer)
    by_group = importance(layer).unflatten(0, (layer.norm2.num_groups, -1))
    channels = torch.arange(by_group.numel(), device=by_group.device).view_as(by_group)
    order = channels[by_group.sum(1).argsort(descending=True, stable=True)].flatten()
    for name in ("conv1.weight", "conv1.bias", "norm2.weight", "norm2.bias"):
        _reorder(new.get_parameter(name), order)
    if layer.time_emb_proj is not None:
        rows = order
        if layer.time_embedding_norm == "scale_shift":
            rows = torch.cat([order, order + len(order)])
        _reorder(new.time_emb_proj.weight, rows)
        _reorder(new.time_emb_proj.bias, rows)
    new.conv2.weight.copy_(new.conv2.weight[:, order].clone())
    return new


def _reorder(parameter: Tensor, order: Tensor) -> None:
    parameter.copy_(parameter[order].clone())


@torch.no_grad()
def _resized(conv: nn.Conv2d, kernel: int) -> nn.Module:
    """Weights of another kernel size that start close to the teacher's 3x3.

    5x5 pads with zeros (the same function); 1x1 sums the taps (the same answer to flat input).
    """
    holder = nn.Module()
    if kernel == 5:
        weight = nn.functional.pad(conv.weight, (1, 1, 1, 1))
    else:
        weight = conv.weight.sum((2, 3), keepdim=True)
    holder.weight = nn.Parameter(weight.clone())
    return holder
