"""The student as a model: of a stock class where a stock config can say its shape."""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import ModelMixin, UNet2DModel
from torch import Tensor

from diffnas.student.modeling import EDITED_MODELS, EditedModel

Edits = Mapping[str, Mapping[str, Any]]

PARTIAL = ("transformer", "joint", "single")
"""Kinds of edits that leave as it is what they do not name."""

_WITHOUT_ATTENTION = {"AttnDownBlock2D": "DownBlock2D", "AttnUpBlock2D": "UpBlock2D"}


def as_model(
    teacher_denoiser_config: Mapping[str, Any],
    edits: Edits,
    state_dict: Mapping[str, Tensor],
    kind: Any = UNet2DModel,
) -> Any:
    """The edited denoiser, in eval mode, with those weights, on their device and in their dtype.

    ``kind``: the teacher's :func:`stock_class`, and the student's where :func:`stock_config` finds
    a config; else it is our class of that kind. A teacher that is itself a student brings its own
    edits.

    Raises:
        RuntimeError: the weights are not those of the edited denoiser.
    """
    config = _public(teacher_denoiser_config)
    edits = merged(config.pop("edits", None) or {}, edits)
    config.pop("edits_format", None)
    stock = stock_config(config, edits, kind)
    if stock is not None:
        model = kind.from_config(stock)
    else:
        edited: Any = next(each for each in EDITED_MODELS if issubclass(each, kind))
        model = edited.from_config(config, edits=edits)
    weight = next(value for value in state_dict.values() if torch.is_floating_point(value))
    model = model.to(weight.device)
    if weight.dtype != model.dtype:  # diffusers warns of every cast
        model = model.to(weight.dtype)
    model.load_state_dict(state_dict)
    return model.eval()


def merged(own: Edits, new: Edits) -> dict[str, dict[str, Any]]:
    """The edits of a student's student, all of them of the first teacher.

    A later edit of a module stands for an earlier one; of kinds that change parts of a module, in
    those parts that it names.
    """
    found = {path: dict(edit) for path, edit in own.items()}
    for path, edit in new.items():
        old = found.get(path, {})
        same = edit["kind"] in PARTIAL and old.get("kind") == edit["kind"]
        found[path] = {**old, **edit} if same else dict(edit)
        if same and "layers" in old and "layers" in edit:
            found[path]["layers"] = [old["layers"][index] for index in edit["layers"]]
    return found


def stock_class(model: Any) -> Any:
    """The class of diffusers that a model is of, or that its edited class comes from."""
    kinds = (kind for kind in type(model).__mro__ if not issubclass(kind, EditedModel))
    return next(kind for kind in kinds if issubclass(kind, ModelMixin))


def stock_config(
    base_config: Mapping[str, Any], edits: Edits, kind: Any = UNet2DModel
) -> dict[str, Any] | None:
    """The stock config of the edited denoiser, or None if there is none.

    ``base_config`` is a model's whole ``config``; for edits of a ``kind`` other than
    ``UNet2DModel`` none is found. Module paths, and so the names of the weights,
    are those of the edited denoiser. What a config can say: no edit; a level without all of its
    attention; the mid block without its attention; no mid block.
    """
    config = _public(base_config)
    if kind is not UNet2DModel:
        return None if edits else config
    skipped = {path for path, edit in edits.items() if edit["kind"] == "skip"}
    left = set(edits)
    for side, resampling in (("down", "downsample_type"), ("up", "upsample_type")):
        types = list(config[f"{side}_block_types"])
        layers = config["layers_per_block"] + (side == "up")
        for level, block_type in enumerate(types):
            plain = _WITHOUT_ATTENTION.get(block_type.removeprefix("UNetRes"))
            paths = _paths(f"{side}_blocks.{level}.attentions", layers)
            # A plain block resamples by convolution only; the last one does not resample.
            same_resampling = config[resampling] in ("conv", None) or level == len(types) - 1
            if plain is not None and paths <= skipped and same_resampling:
                types[level] = plain
                left -= paths
        config[f"{side}_block_types"] = tuple(types)
    # A skipped layer still divides by the scale factor; one that is not there does not.
    if config["mid_block_type"] is not None and config["mid_block_scale_factor"] == 1:
        attention = _paths("mid_block.attentions", int(config["add_attention"]))
        if attention and attention <= skipped:
            config["add_attention"] = False
            left -= attention
        resnets = _paths("mid_block.resnets", 2)
        if attention | resnets <= skipped:
            config["mid_block_type"] = None
            left -= attention | resnets
    return None if left else config


def _paths(parent: str, count: int) -> set[str]:
    return {f"{parent}.{i}" for i in range(count)}


def _public(config: Mapping[str, Any]) -> dict[str, Any]:
    """The entries that a model is made from, without diffusers' notes e.g. of its origin."""
    return {
        key: value for key, value in config.items() if not key.startswith("_") and key != "auto_map"
    }
