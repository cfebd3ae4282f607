"""How a student differs from its teacher: small edits of single modules.

One file, as long as it is, because it travels: a copy of it, named after its content, lies in the
folder of every saved student whose shapes a stock config cannot express, so that plain diffusers
can load it with ``trust_remote_code=True``. It needs torch and diffusers only.

An edit is a plain dict; its ``kind`` names the module type it applies to:

- ``{"kind": "resnet", "width": 24, "groups": 6, "kernel": 3}``: a ``ResnetBlock2D`` with that many
  inner channels, norm groups and kernel size,
- ``{"kind": "attention", "heads": 2}``: an ``Attention`` with fewer heads,
- ``{"kind": "feed_forward", "width": 64}``: a ``FeedForward`` with that many inner channels,
- ``{"kind": "transformer", "heads": 2, "cross_heads": 0, "width": 64, "layers": [0, 2]}``: a
  ``Transformer2DModel`` or ``BasicTransformerBlock`` with so many heads of self- and
  cross-attention (0: without it), such feed-forwards, and those of its layers alone; what is not
  named stays. ``"modulation": 4``: what timestep and condition tell its norms goes through so many
  channels, in these layers and in those of the next two kinds,
- ``{"kind": "conv", "rank": 16}`` or ``{"kind": "conv", "kernel": 1}``: a ``Conv2d`` as the product
  of a k x k one with that many outputs and a 1 x 1 one, or with another kernel size,
- ``{"kind": "upsampler"}``: an ``Upsample2D`` as a ``FoldedUpsample2D``; with a ``rank`` as a
  ``FactoredUpsample2D``, with ``"kernel": 1`` as a ``PointUpsample2D``,
- ``{"kind": "joint", "heads": 2, "width": 64, "context_width": 32}``: a ``JointTransformerBlock``,
  ``FluxTransformerBlock`` or ``Flux2TransformerBlock`` with so many heads, and such feed-forwards
  for image and text,
- ``{"kind": "single", "heads": 2, "width": 64}``: a ``FluxSingleTransformerBlock`` with so many
  heads and so many channels beside them,
- ``{"kind": "parallel", "heads": 2, "width": 64}``: the same of a ``Flux2SingleTransformerBlock``,
- ``{"kind": "skip"}``: any of these but a convolution or upsampler without its residual branch,
- ``{"kind": "drop"}``: a ``ResnetBlock2D`` of an up block that is not there at all,
- ``{"kind": "trunk", "groups": 6}``, at the path "" of the model itself: every stream, which is
  what its layers pass on to each other, keeps so many of its norm groups. Layers stay as wide
  inside as they are.
"""

import copy
import functools
import hashlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers import (
    ConfigMixin,
    DiTTransformer2DModel,
    Flux2Transformer2DModel,
    FluxTransformer2DModel,
    ModelMixin,
    PixArtTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
    UNet2DModel,
)
from diffusers.models.attention import (
    BasicTransformerBlock,
    FeedForward,
    JointTransformerBlock,
)
from diffusers.models.attention_processor import Attention
from diffusers.models.downsampling import Downsample2D
from diffusers.models.normalization import (
    AdaLayerNormContinuous,
    AdaLayerNormZero,
    AdaLayerNormZeroSingle,
    SD35AdaLayerNormZeroX,
)
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.transformers.transformer_flux import (
    FluxSingleTransformerBlock,
    FluxTransformerBlock,
)
from diffusers.models.transformers.transformer_flux2 import (
    Flux2FeedForward,
    Flux2SingleTransformerBlock,
    Flux2TransformerBlock,
)
from diffusers.models.upsampling import Upsample2D
from diffusers.utils import convert_unet_state_dict_to_peft
from torch import Tensor, nn
from torch.nn import functional

EDITS_FORMAT = 3
"""Raised when the meaning of an edit changes, so that an older reader refuses instead of erring."""

_SOURCE = Path(__file__).read_bytes()

MODULE_NAME = f"diffnas_student_{hashlib.sha256(_SOURCE).hexdigest()[:12]}"
"""This module's name in a pipeline folder. By content, since diffusers keeps all custom modules in
one cache, where different files of one name would overwrite each other."""

# Under that name diffusers' `from_pretrained(unet=...)` and other processes look for the classes.
sys.modules.setdefault(MODULE_NAME, sys.modules[__name__])


KINDS = (
    *("resnet", "attention", "feed_forward", "transformer", "joint", "single", "parallel"),
    *("conv", "upsampler", "skip", "drop"),
)
"""Of edits of single modules."""

JOINT = JointTransformerBlock | FluxTransformerBlock | Flux2TransformerBlock
"""Layers in which text and image have weights of their own."""

TWO_STREAMS = JOINT | FluxSingleTransformerBlock
"""Layers that take and give text and image."""

LAYERS = Transformer2DModel | BasicTransformerBlock | TWO_STREAMS | Flux2SingleTransformerBlock
RESIDUAL = ResnetBlock2D | Attention | FeedForward | LAYERS
"""Modules that can be left out."""


MODULATED = (
    AdaLayerNormContinuous,
    AdaLayerNormZero,
    AdaLayerNormZeroSingle,
    SD35AdaLayerNormZeroX,
)
"""Norms that timestep and condition tell, through a linear layer, how far to shift and to scale."""


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
        alone = isinstance(layer, FeedForward)  # its residual connection is its parent's
        self.residual = getattr(layer, "residual_connection", not alone)
        scale = getattr(layer, "output_scale_factor", None)
        self.scale = getattr(layer, "rescale_output_factor", 1.0) if scale is None else scale
        self.joint = isinstance(layer, TWO_STREAMS)
        self.hands_text_on = not getattr(layer, "context_pre_only", False)

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Give what the layer gives when its branch is zero; further arguments are the branch's."""
        if not self.residual:
            return torch.zeros_like(hidden_states)
        if self.joint:
            # With gradient checkpointing diffusers names no argument.
            text = args[0] if args else kwargs["encoder_hidden_states"]
            return text if self.hands_text_on else None, hidden_states
        for resample in (self.upsample, self.downsample):
            if resample is not None:
                hidden_states = resample(hidden_states)
        if self.conv_shortcut is not None:
            hidden_states = self.conv_shortcut(hidden_states)
        hidden_states = hidden_states if self.scale == 1.0 else hidden_states / self.scale
        # Where a transformer stood.
        return (hidden_states,) if kwargs.get("return_dict") is False else hidden_states


class Drop(nn.Module):
    """A ResNet layer of an up block that is not there: no shortcut, and the skip goes unread.

    What came up is the first part of the input, the skip that was joined to it the rest.

    Raises:
        ValueError: the layer reads no more channels than it gives, so nothing was joined.
    """

    def __init__(self, layer: Any) -> None:
        super().__init__()
        if layer.in_channels <= layer.conv_shortcut.out_channels:
            raise ValueError("only a layer that reads a skip can be dropped")
        self.channels = layer.conv_shortcut.out_channels

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        """Give the first channels, as many as the layer gave."""
        return hidden_states[:, : self.channels]


class FoldedUpsample2D(nn.Module):
    """An upsampler whose 3 x 3 convolution goes before the enlargement, as four of 2 x 2.

    Pixels that are repeated twice each way are read in 2 x 2 different places by a 3 x 3 window,
    which ones depends on the place in the square that is given. So sums of its taps serve as the
    weights of four convolutions, one for each place: 16 products for a pixel that is read, where 36
    were (cf. Shi et al. 2016, arXiv 1609.07009).
    """

    def __init__(self, conv: nn.Conv2d, given: int, bias: bool) -> None:
        super().__init__()
        make = _like(conv.weight)
        self.phases = nn.ModuleList(
            nn.Conv2d(conv.in_channels, given, 2, bias=bias, **make) for _ in range(4)
        )

    def forward(self, hidden_states: Tensor, output_size: Any = None) -> Tensor:
        """(B, C, H, W) to (B, C', 2H, 2W), or the first pixels of that as an ``output_size``.

        Of a size that is not twice the input's the last row and column see what is cut off.
        """
        height, width = (size + 1 for size in hidden_states.shape[-2:])
        padded = functional.pad(hidden_states, (1, 1, 1, 1))
        places = [
            conv(padded[..., place // 2 :, place % 2 :][..., :height, :width])
            for place, conv in enumerate(self.phases)
        ]
        made = functional.pixel_shuffle(torch.stack(places, 2).flatten(1, 2), 2)
        return made if output_size is None else made[..., : output_size[0], : output_size[1]]


class FactoredUpsample2D(FoldedUpsample2D):
    """The same of a lower rank: a 1 x 1 convolution follows."""

    def __init__(self, conv: nn.Conv2d, rank: int) -> None:
        super().__init__(conv, rank, bias=False)
        bias = conv.bias is not None
        self.second = nn.Conv2d(rank, conv.out_channels, 1, bias=bias, **_like(conv.weight))

    def forward(self, hidden_states: Tensor, output_size: Any = None) -> Tensor:
        """As of full rank."""
        made: Tensor = self.second(super().forward(hidden_states, output_size))
        return made


class PointUpsample2D(nn.Module):
    """An upsampler with a 1 x 1 convolution, which gives the same before it enlarges."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = _conv(conv, None, 1)

    def forward(self, hidden_states: Tensor, output_size: Any = None) -> Tensor:
        """(B, C, H, W) to (B, C', 2H, 2W), or to an ``output_size``."""
        made: Tensor = self.conv(hidden_states)
        size = output_size or [2 * pixels for pixels in made.shape[-2:]]
        return functional.interpolate(made, size=size, mode="nearest")


def edit_module(module: nn.Module, edit: Mapping[str, Any]) -> nn.Module:
    """A new module of the edited shape; new layers have fresh weights on the module's device.

    Raises:
        ValueError: the edit's kind is unknown, or is not for a module of this type.
    """
    kind = edit.get("kind")
    match kind, module:
        case "skip", _ if isinstance(module, RESIDUAL):
            new: nn.Module = copy.deepcopy(Skip(module))
        case "drop", ResnetBlock2D(conv_shortcut=nn.Conv2d()):
            new = Drop(module)
        case "resnet", ResnetBlock2D():
            new = _resnet(module, edit["width"], edit["groups"], edit["kernel"])
        case "attention", Attention():
            new = _attention(module, edit["heads"])
        case "feed_forward", FeedForward():
            new = _feed_forward(module, edit["width"])
        case "transformer", Transformer2DModel() | BasicTransformerBlock():
            new = _transformer(module, edit)
        case "joint", _ if isinstance(module, JOINT):
            new = _joint(module, edit)
        case "single", FluxSingleTransformerBlock():
            new = _single(module, edit)
        case "parallel", Flux2SingleTransformerBlock():
            new = _parallel(module, edit)
        case "conv", nn.Conv2d():
            new = _conv(module, edit.get("rank"), edit.get("kernel"))
        case "upsampler", Upsample2D():
            new = _upsampler(module, edit.get("rank"), edit.get("kernel"))
        case _:
            unknown = f"edit of unknown kind {kind!r}; known: {', '.join(KINDS)}"
            unfit = f"an edit of kind {kind!r} is not for a {type(module).__name__}"
            raise ValueError(unfit if kind in KINDS else unknown)
    return new.train(module.training)


def apply_edits(model: nn.Module, edits: Mapping[str, Mapping[str, Any]]) -> None:
    """Replace, in place, the modules at the given paths.

    Raises:
        ValueError: the model has no module at a path, or an edit is not for that module.
    """
    for path, edit in sorted(edits.items()):  # JSON keeps no order; sorted, parents come first
        if path == "":
            if edit.get("kind") != "trunk" or "groups" not in edit:
                raise ValueError(f"edit of the whole model: {dict(edit)} is no trunk with groups")
            narrow_trunk(model, edit["groups"], trunk_groups(model))
            continue
        parent_path, _, _ = path.rpartition(".")
        try:
            parent, old = model.get_submodule(parent_path), model.get_submodule(path)
            new = edit_module(old, edit)
        except AttributeError:
            raise ValueError(f"edit of {path!r}: the model has no such module") from None
        except (KeyError, ValueError) as error:
            raise ValueError(f"edit of {path!r}: {error}") from error
        # Downsample2D may hold its convolution under two names.
        for name in [name for name, child in parent._modules.items() if child is old]:
            setattr(parent, name, new)


_ON_STREAMS: dict[Any, dict[str, str]] = {
    ResnetBlock2D: {"norm1": "rw", "conv1": "r", "conv2": "w", "conv_shortcut": "rw"},
    Attention: {"group_norm": "rw", "to_q": "r", "to_k": "r", "to_v": "r", "to_out.0": "w"},
    Downsample2D: {"conv": "rw"},
    Upsample2D: {"conv": "rw"},
    PointUpsample2D: {"conv": "rw"},
    FactoredUpsample2D: {**{f"phases.{place}": "r" for place in range(4)}, "second": "w"},
    FoldedUpsample2D: {f"phases.{place}": "rw" for place in range(4)},
    Skip: {"conv_shortcut": "rw"},
    Transformer2DModel: {"norm": "rw", "proj_in": "r", "proj_out": "w"},
    UNet2DModel: {"conv_in": "w", "conv_norm_out": "rw", "conv_out": "r"},
    UNet2DConditionModel: {"conv_in": "w", "conv_norm_out": "rw", "conv_out": "r"},
}
"""By type of module, its layers that read from a stream (r) or write to one (w)."""


class OnStream(NamedTuple):
    """A layer whose inputs (reads) or outputs (writes) are channels of a stream."""

    module: str
    path: str
    layer: Any
    reads: bool
    writes: bool


def layers_on_streams(model: nn.Module) -> Iterator[OnStream]:
    """All layers whose shapes follow the trunk's width; a factored one is two."""
    inside = ""
    for path, module in model.named_modules():
        if inside and path.startswith(inside):  # a transformer has a stream of its own
            continue
        if isinstance(module, Transformer2DModel):
            inside = f"{path}."
        kind = next((kind for kind in _ON_STREAMS if isinstance(module, kind)), None)
        for name, does in _ON_STREAMS.get(kind, {}).items():
            layer: Any = module
            for part in name.split("."):
                layer = getattr(layer, part, None)
            full = f"{path}.{name}" if path else name
            if isinstance(layer, nn.Sequential):  # edits with a rank, of a factor again perhaps
                chain = [(n, m) for n, m in layer.named_modules() if isinstance(m, nn.Conv2d)]
                (first, reading), *_, (last, writing) = chain
                yield OnStream(path, f"{full}.{first}", reading, "r" in does, False)
                yield OnStream(path, f"{full}.{last}", writing, False, "w" in does)
            elif getattr(layer, "weight", None) is not None:
                yield OnStream(path, full, layer, "r" in does, "w" in does)


def trunk_groups(model: Any) -> int:
    """How many norm groups the model's streams have."""
    trunk = (model.config.get("edits") or {}).get("")
    groups: int = trunk["groups"] if trunk else model.config["norm_num_groups"]
    return groups


def narrow_trunk(model: Any, groups: int, of: int) -> None:
    """Cut every stream, in place, from ``of`` norm groups to fewer; cut layers get fresh weights.

    All norms on streams then have fewer groups of the size they had. The time embedding, what
    layers are inside and the image's channels stay.

    Raises:
        ValueError: not so many groups, or something that does not divide as they do.
    """

    def cut(size: int) -> int:
        if not 0 < groups <= of or size * groups % of:
            raise ValueError(f"{size} cannot be cut to {groups} of {of} parts")
        return size * groups // of

    for _, path, layer, reads, writes in list(layers_on_streams(model)):
        match layer:
            case nn.GroupNorm():
                sizes = {"num_groups": True, "num_channels": True}
            case nn.Conv2d():
                sizes = {"out_channels": writes, "in_channels": reads}
            case nn.Linear():
                sizes = {"out_features": writes, "in_features": reads}
            case _:
                raise ValueError(f"{path}: a {type(layer).__name__} cannot be cut")
        for name in (name for name, wanted in sizes.items() if wanted):
            setattr(layer, name, cut(getattr(layer, name)))
        rows, columns = (getattr(layer, name) for name in sizes)
        norm = isinstance(layer, nn.GroupNorm)
        shape = (columns,) if norm else (rows, columns, *layer.weight.shape[2:])
        layer.weight = nn.Parameter(layer.weight.new_empty(shape))
        if layer.bias is not None:
            layer.bias = nn.Parameter(layer.bias.new_empty(shape[0]))
        layer.reset_parameters()
    for module in model.modules():
        if isinstance(module, Downsample2D | Upsample2D):
            module.channels, module.out_channels = cut(module.channels), cut(module.out_channels)


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
    # These tie heads together.
    if (
        getattr(layer, "inner_kv_dim", layer.inner_dim) != layer.inner_dim
        or layer.fused_projections
        or any(
            norm is not None and layer.inner_dim in getattr(norm, "normalized_shape", ())
            for norm in (layer.norm_q, layer.norm_k)
        )
    ):
        raise ValueError("heads of this attention layer cannot be removed one by one")
    new = copy.deepcopy(layer)
    inner = layer.inner_dim // layer.heads * heads
    for name in ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj"):
        if (old := getattr(layer, name, None)) is not None:
            setattr(new, name, _linear(old, rows=inner))
    if getattr(layer, "to_out", None) is not None:  # else its parent has the way out
        new.to_out[0] = _linear(layer.to_out[0], columns=inner)
    if (out := getattr(layer, "to_add_out", None)) is not None:
        new.to_add_out = _linear(out, columns=inner)
    new.heads = new.sliceable_head_dim = heads
    new.inner_dim = new.inner_kv_dim = inner
    return new


def _feed_forward(layer: Any, width: int) -> nn.Module:
    new = copy.deepcopy(layer)
    if isinstance(layer, Flux2FeedForward):
        new.linear_in = _linear(layer.linear_in, rows=2 * width)  # gates and values
        new.linear_out = _linear(layer.linear_out, columns=width)
        return new
    old, out = layer.net[0].proj, layer.net[2]
    rows = old.out_features // out.in_features * width  # gated ones have two parts
    new.net[0].proj, new.net[2] = _linear(old, rows=rows), _linear(out, columns=width)
    return new


def modulated(layer: nn.Module) -> list[str]:
    """Names of a transformer layer's modulated norms, but for those whose layer is factored."""
    norms = ((name, each) for name, each in layer.named_children() if isinstance(each, MODULATED))
    return [name for name, norm in norms if isinstance(norm.linear, nn.Linear)]


def _modulate(layer: nn.Module, edit: Mapping[str, Any]) -> None:
    """Let its norms be told through so many channels, in place."""
    if (rank := edit.get("modulation")) is None:
        return
    for norm in map(layer.get_submodule, modulated(layer)):
        old: Any = norm.linear
        first = nn.Linear(old.in_features, rank, bias=False, **_like(old.weight))
        norm.linear = nn.Sequential(first, _linear(old, columns=rank))


def _transformer(layer: Any, edit: Mapping[str, Any]) -> nn.Module:
    new = copy.deepcopy(layer)
    if "layers" in edit:
        new.transformer_blocks = nn.ModuleList(
            [new.transformer_blocks[index] for index in edit["layers"]]
        )
    for block in getattr(new, "transformer_blocks", [new]):
        _modulate(block, edit)
        for name, setting in (("attn1", "heads"), ("attn2", "cross_heads")):
            if (heads := edit.get(setting)) is not None:
                old = getattr(block, name)
                setattr(block, name, _attention(old, heads) if heads else Skip(old))
        if (width := edit.get("width")) is not None:
            block.ff = _feed_forward(block.ff, width)
    return new


def _joint(layer: Any, edit: Mapping[str, Any]) -> nn.Module:
    new = copy.deepcopy(layer)
    _modulate(new, edit)
    if (heads := edit.get("heads")) is not None:
        new.attn = _attention(layer.attn, heads)
        if getattr(layer, "attn2", None) is not None:
            new.attn2 = _attention(layer.attn2, heads)
    for name, setting in (("ff", "width"), ("ff_context", "context_width")):
        if (width := edit.get(setting)) is not None:
            setattr(new, name, _feed_forward(getattr(layer, name), width))
    return new


def _single(layer: Any, edit: Mapping[str, Any]) -> nn.Module:
    new = copy.deepcopy(layer)
    _modulate(new, edit)
    if (heads := edit.get("heads")) is not None:
        new.attn = _attention(layer.attn, heads)
    if (width := edit.get("width")) is not None:
        new.proj_mlp = _linear(layer.proj_mlp, rows=width)
        new.mlp_hidden_dim = width
    inward = [new.attn.inner_dim, new.mlp_hidden_dim]
    new.proj_out = _linear(layer.proj_out, columns=sum(inward))
    # Where diffusers notes, for several devices, what the layer's inputs are made of.
    new.proj_out._tp_packed_row_blocks = inward
    return new


def _parallel(layer: Any, edit: Mapping[str, Any]) -> nn.Module:
    new = copy.deepcopy(layer)
    attn = new.attn
    attn.heads = edit.get("heads", attn.heads)
    attn.inner_dim = attn.heads * attn.head_dim
    attn.mlp_hidden_dim = edit.get("width", attn.mlp_hidden_dim)
    inward = [*[attn.inner_dim] * 3, *[attn.mlp_hidden_dim] * attn.mlp_mult_factor]
    outward = [attn.inner_dim, attn.mlp_hidden_dim]
    attn.to_qkv_mlp_proj = _linear(layer.attn.to_qkv_mlp_proj, rows=sum(inward))
    attn.to_out = _linear(layer.attn.to_out, columns=sum(outward))
    # Where diffusers notes, for several devices, what it joined.
    attn.to_qkv_mlp_proj._tp_packed_col_blocks = inward
    attn.to_out._tp_packed_row_blocks = outward
    return new


def _linear(layer: Any, rows: int | None = None, columns: int | None = None) -> Any:
    """A fresh layer with so many outputs and inputs, else as many as this one has."""
    rows, columns = rows or layer.out_features, columns or layer.in_features
    return nn.Linear(columns, rows, bias=layer.bias is not None, **_like(layer.weight))


def _conv(layer: nn.Conv2d, rank: int | None, kernel: int | None) -> nn.Module:
    if layer.groups != 1 or layer.dilation != (1, 1) or isinstance(layer.padding, str):
        raise ValueError("grouped, dilated and 'same' convolutions are not edited")
    make = _like(layer.weight)
    bias = layer.bias is not None
    as_before = {"stride": layer.stride, "padding_mode": layer.padding_mode, **make}
    window: dict[str, Any] = {"kernel_size": layer.kernel_size, "padding": layer.padding}
    if rank is not None:
        first = nn.Conv2d(layer.in_channels, rank, bias=False, **window, **as_before)
        return nn.Sequential(first, nn.Conv2d(rank, layer.out_channels, 1, bias=bias, **make))
    if kernel is None:
        raise ValueError("a conv edit has a rank or a kernel")
    # Same output size for another odd kernel: the padding moves with half the kernel.
    pad = tuple(
        p + (kernel - k) // 2 for p, k in zip(layer.padding, layer.kernel_size, strict=True)
    )
    if min(pad) < 0:
        raise ValueError(f"kernel {kernel} is too small for a convolution padded outside of it")
    window = {"kernel_size": kernel, "padding": pad}
    return nn.Conv2d(layer.in_channels, layer.out_channels, bias=bias, **window, **as_before)


def foldable(layer: Upsample2D) -> bool:
    """Whether all that it does is to enlarge and then to convolve, 3 x 3."""
    conv = getattr(layer, "conv", None)
    return (
        type(conv) is nn.Conv2d
        and (conv.kernel_size, conv.padding) == ((3, 3), (1, 1))
        and (conv.stride, conv.dilation, conv.groups) == ((1, 1), (1, 1), 1)
        and conv.padding_mode == "zeros"
        and bool(layer.interpolate)
        and layer.norm is None
    )


def _upsampler(layer: Any, rank: int | None, kernel: int | None) -> nn.Module:
    if not foldable(layer):
        raise ValueError("only a plain 3 x 3 convolution right after the enlargement is folded")
    if kernel not in (None, 1):
        raise ValueError(f"kernel {kernel}: an upsampler's may be 1")
    conv = layer.conv
    if kernel is not None:
        return PointUpsample2D(conv)
    if rank is not None:
        return FactoredUpsample2D(conv, rank)
    return FoldedUpsample2D(conv, conv.out_channels, conv.bias is not None)


def _like(weight: Tensor) -> dict[str, Any]:
    return {"device": weight.device, "dtype": weight.dtype}


def _with_edits(parent_init: Callable[..., None]) -> Callable[..., None]:
    """The parent's ``__init__`` with ``edits`` beside the parent's own arguments.

    Its signature lists the parent's arguments by name, because diffusers drops config entries that
    ``__init__`` does not name: a ``**kwargs`` would silently turn them into defaults on loading.
    """

    @functools.wraps(parent_init)
    def init(
        self: Any,
        *args: Any,
        edits: Mapping[str, Mapping[str, Any]] | None = None,
        edits_format: int = EDITS_FORMAT,
        **kwargs: Any,
    ) -> None:
        if edits_format > EDITS_FORMAT:
            raise ValueError(
                f"edits_format {edits_format} is newer than {EDITS_FORMAT}, all that is known here"
            )
        parent_init(self, *args, **kwargs)  # puts the parent's arguments into the config
        edits = {path: dict(edit) for path, edit in (edits or {}).items()}
        apply_edits(self, edits)
        self.register_to_config(edits=edits, edits_format=edits_format)

    named = inspect.signature(parent_init)
    own = [
        inspect.Parameter("edits", inspect.Parameter.KEYWORD_ONLY, default=None),
        inspect.Parameter("edits_format", inspect.Parameter.KEYWORD_ONLY, default=EDITS_FORMAT),
    ]
    vars(init)["__signature__"] = named.replace(parameters=[*named.parameters.values(), *own])
    return init


class EditedModel(ModelMixin, ConfigMixin):
    """What an edited model does beyond its stock parent: its code travels with its weights."""

    @functools.wraps(ModelMixin.save_pretrained)
    def save_pretrained(
        self, save_directory: str | PathLike[str], *args: Any, **kwargs: Any
    ) -> None:
        """As the parent's, and this file under its content's name."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{MODULE_NAME}.py").write_bytes(_SOURCE)
        super().save_pretrained(save_directory, *args, **kwargs)

    @classmethod
    def extract_init_dict(cls, config_dict: Mapping[str, Any], **kwargs: Any) -> Any:
        """As the parent's; diffusers would warn of its own ``auto_map`` entry."""
        config = {key: value for key, value in config_dict.items() if key != "auto_map"}
        return super().extract_init_dict(config, **kwargs)

    def load_lora_adapter(
        self, adapter: Any, prefix: str | None = "transformer", **kwargs: Any
    ) -> Any:
        """As the parent's, of classes that have it; diffusers would leave out what does not fit.

        Pipelines hand over tensors by name, which are looked at; a folder's or repository's are
        not.

        Raises:
            ValueError: the adapter was trained on layers that this model has not, or has narrower.
        """
        if isinstance(adapter, Mapping):
            _check_adapter(self, adapter, prefix)
        parent: Any = super()
        return parent.load_lora_adapter(adapter, prefix=prefix, **kwargs)


_FACTOR = re.compile(r"\.(lora_A|lokr_w1(?:_a)?)(?:\.|$)")
"""What follows a layer's path in one of its tensors' names, in peft's form of an adapter."""


def _check_adapter(model: nn.Module, adapter: Mapping[str, Tensor], prefix: str | None) -> None:
    start = "" if prefix is None else f"{prefix}."
    # Names of older forms become peft's, as in the parent.
    named: Mapping[str, Tensor] = convert_unet_state_dict_to_peft(
        {name.removeprefix(start): each for name, each in adapter.items() if name.startswith(start)}
    )
    unfit, layers = [], 0
    for name, value in named.items():
        if (match := _FACTOR.search(name)) is None:
            continue
        layers += 1
        path, rows, columns = name[: match.start()], None, None
        if match[1] == "lora_A":
            outward = named.get(name.replace(".lora_A", ".lora_B"))
            rows, columns = None if outward is None else outward.shape[0], value.shape[1]
        else:  # a Kronecker product, perhaps of layers that diffusers joins before it loads it
            path = re.sub(r"\.to_qkv$", ".to_q", re.sub(r"\.to_added_qkv$", ".add_q_proj", path))
        if not _fits(model, path, (rows, columns)):
            unfit.append(path)
    if unfit:
        raise ValueError(
            f"this LoRA adapter is of another architecture: {len(unfit)} of {layers} layers are "
            f"not in this student or are narrower there, e.g. {unfit[0]}; train it on the student"
        )


def _fits(model: nn.Module, path: str, sizes: tuple[int | None, int | None]) -> bool:
    """Whether a layer is there that gives and takes so much, where that is known."""
    try:
        layer: Any = model.get_submodule(path)
    except AttributeError:
        return False
    weight = getattr(getattr(layer, "base_layer", layer), "weight", None)
    if weight is None:  # a product of two layers stands there
        return False
    return all(size in (None, own) for size, own in zip(sizes, weight.shape, strict=False))


def _edited(parent: Any) -> Any:
    """The parent's class for edited models. Its config is the parent's and ``edits``."""
    name = f"DiffNAS{parent.__name__}"
    body = {
        # diffusers writes this into model_index.json and looks for such a file beside the weights.
        "__module__": MODULE_NAME,
        "__doc__": f"A ``{parent.__name__}`` with edited modules: {{path of a module: edit}}.",
        "__init__": _with_edits(parent.__init__),
    }
    made: Any = type(name, (EditedModel, parent), body)
    made.register_for_auto_class("AutoModel")
    return made


DiffNASUNet2DModel = _edited(UNet2DModel)
DiffNASUNet2DConditionModel = _edited(UNet2DConditionModel)
DiffNASDiTTransformer2DModel = _edited(DiTTransformer2DModel)
DiffNASPixArtTransformer2DModel = _edited(PixArtTransformer2DModel)
DiffNASSD3Transformer2DModel = _edited(SD3Transformer2DModel)
DiffNASFluxTransformer2DModel = _edited(FluxTransformer2DModel)
DiffNASFlux2Transformer2DModel = _edited(Flux2Transformer2DModel)

EDITED_MODELS = (
    DiffNASUNet2DModel,
    DiffNASUNet2DConditionModel,
    DiffNASDiTTransformer2DModel,
    DiffNASPixArtTransformer2DModel,
    DiffNASSD3Transformer2DModel,
    DiffNASFluxTransformer2DModel,
    DiffNASFlux2Transformer2DModel,
)
