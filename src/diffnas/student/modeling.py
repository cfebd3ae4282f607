"""How a student differs from its teacher: small edits of single modules.

This file needs torch and diffusers only. A copy of it travels in the folder of every saved
student whose shapes a stock config cannot express, so that plain diffusers can load it.

An edit is a plain dict; its ``kind`` names the module type it applies to:

- ``{"kind": "resnet", "width": 24, "groups": 6, "kernel": 3}``: a ``ResnetBlock2D`` with that many
  inner channels, norm groups and kernel size,
- ``{"kind": "attention", "heads": 2}``: an ``Attention`` with fewer heads,
- ``{"kind": "conv", "rank": 16}`` or ``{"kind": "conv", "kernel": 1}``: a ``Conv2d`` as the product
  of a k x k one with that many outputs and a 1 x 1 one, or with another kernel size,
- ``{"kind": "skip"}``: a ``ResnetBlock2D`` or ``Attention`` without its residual branch.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn


class Skip(nn.Module):
    """A residual layer without its branch; what the layer did besides is kept.

    Keeps a ResNet layer's inner resampling, its 1x1 shortcut and its output scale, and an attention
    layer's rescaling. Without a residual connection the branch was all, and zeros remain.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.upsample = getattr(layer, "upsample", None)
        self.downsample = getattr(layer, "downsample", None)
        self.conv_shortcut = getattr(layer, "conv_shortcut", None)
        self.residual = getattr(layer, "residual_connection", True)
        scale = getattr(layer, "output_scale_factor", None)
        self.scale = getattr(layer, "rescale_output_factor", 1.0) if scale is None else scale

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not self.residual:
            return torch.zeros_like(hidden_states)
        for resample in (self.upsample, self.downsample):
            if resample is not None:
                hidden_states = resample(hidden_states)
        if self.conv_shortcut is not None:
            hidden_states = self.conv_shortcut(hidden_states)
        return hidden_states if self.scale == 1.0 else hidden_states / self.scale


def edit_module(module: nn.Module, edit: dict[str, Any]) -> nn.Module:
    """A new module of the edited shape; new layers have fresh weights on the module's device.

    Raises:
        ValueError: the edit's kind is unknown.
    """
    kind = edit["kind"]
    if kind == "skip":
        return Skip(copy.deepcopy(module))
    if kind == "resnet":
        return _resnet(module, edit["width"], edit["groups"], edit["kernel"])
    if kind == "attention":
        return _attention(module, edit["heads"])
    if kind == "conv":
        return _conv(module, edit.get("rank"), edit.get("kernel"))
    raise ValueError(f"edit of unknown kind {kind!r}; this file knows resnet, attention, conv, skip")


def apply_edits(model: nn.Module, edits: dict[str, dict[str, Any]]) -> None:
    """Replace, in place, the modules at the given paths."""
    for path, edit in edits.items():
        parent_path, _, _ = path.rpartition(".")
        parent = model.get_submodule(parent_path)
        old = model.get_submodule(path)
        new = edit_module(old, edit)
        # Downsample2D may hold its convolution under two names.
        for name in [name for name, child in parent._modules.items() if child is old]:
            setattr(parent, name, new)


def _resnet(layer: Any, width: int, groups: int, kernel: int) -> nn.Module:
    new = copy.deepcopy(layer)
    make = _like(layer.conv1.weight)
    pad = kernel // 2
    new.conv1 = nn.Conv2d(layer.conv1.in_channels, width, kernel, padding=pad, **make)
    new.conv2 = nn.Conv2d(width, layer.conv2.out_channels, kernel, padding=pad, **make)
    new.norm2 = nn.GroupNorm(groups, width, eps=layer.norm2.eps, **make)
    if layer.time_emb_proj is not None:
        rows = 2 * width if layer.time_embedding_norm == "scale_shift" else width
        new.time_emb_proj = nn.Linear(layer.time_emb_proj.in_features, rows, **make)
    new.out_channels = width
    return new


def _attention(layer: Any, heads: int) -> nn.Module:
    new = copy.deepcopy(layer)
    make = _like(layer.to_q.weight)
    inner = layer.inner_dim // layer.heads * heads
    for name in ("to_q", "to_k", "to_v"):
        old = getattr(layer, name)
        setattr(new, name, nn.Linear(old.in_features, inner, bias=old.bias is not None, **make))
    out = layer.to_out[0]
    new.to_out[0] = nn.Linear(inner, out.out_features, bias=out.bias is not None, **make)
    new.heads = new.sliceable_head_dim = heads
    new.inner_dim = new.inner_kv_dim = inner
    return new


def _conv(layer: Any, rank: int | None, kernel: int | None) -> nn.Module:
    make = _like(layer.weight)
    bias = layer.bias is not None
    shape = {"stride": layer.stride, "padding": layer.padding}
    if rank is not None:
        first = nn.Conv2d(layer.in_channels, rank, layer.kernel_size, bias=False, **shape, **make)
        return nn.Sequential(first, nn.Conv2d(rank, layer.out_channels, 1, bias=bias, **make))
    # Same output size for another odd kernel: the padding moves with half the kernel.
    assert kernel is not None
    pad = tuple(p + (kernel - k) // 2 for p, k in zip(layer.padding, layer.kernel_size, strict=True))
    return nn.Conv2d(
        layer.in_channels, layer.out_channels, kernel, layer.stride, pad, bias=bias, **make
    )


def _like(weight: Tensor) -> dict[str, Any]:
    return {"device": weight.device, "dtype": weight.dtype}
