"""The student as a model: of a stock class where a stock config can say its shape."""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import ModelMixin, UNet2DConditionModel, UNet2DModel
from torch import Tensor

from diffnas.student.modeling import EDITED_MODELS, EditedModel
from diffnas.student.needs import Edits, block_names, name_in_stock, needs, with_needs

PARTIAL = ("transformer", "joint", "single", "parallel")
"""Kinds of edits that leave as it is what they do not name."""

STOCK = (UNet2DModel, UNet2DConditionModel)
"""Classes whose configs can say some edits."""


def as_model(
    teacher_denoiser_config: Mapping[str, Any],
    edits: Edits,
    state_dict: Mapping[str, Tensor],
    kind: Any = UNet2DModel,
    *,
    edited: bool = False,
) -> Any:
    """The edited denoiser, in eval mode, with those weights, on their device and in their dtype.

    ``kind``: the teacher's :func:`stock_class`, and the student's where :func:`stock_config` finds
    a config, unless it is to be ``edited`` all the same; else it is our class of that kind, whose
    blocks take and give what the teacher's do. A teacher that is itself a student brings its own
    edits.

    Raises:
        RuntimeError: the weights are not those of the edited denoiser.
    """
    config = _public(teacher_denoiser_config)
    edits = merged(config.pop("edits", None) or {}, edits)
    config.pop("edits_format", None)
    stock = None if edited else stock_config(config, edits, kind)
    if stock is not None:
        model = kind.from_config(stock)
        state_dict = {name_in_stock(name, edits): each for name, each in state_dict.items()}
    else:
        ours: Any = next(each for each in EDITED_MODELS if issubclass(each, kind))
        model = ours.from_config(config, edits=edits)
    weight = next(value for value in state_dict.values() if torch.is_floating_point(value))
    model = model.to(weight.device)
    if weight.dtype != model.dtype:  # diffusers warns of every cast
        model = model.to(weight.dtype)
    model.load_state_dict(state_dict)
    return model.eval()


def as_stock(model: EditedModel, kind: Any) -> Any:
    """The same denoiser of the stock class, where a stock config can say it; else as it is."""
    config = _public(model.config)
    edits = config.pop("edits", None) or {}
    config.pop("edits_format", None)
    if stock_config(config, edits, kind) is None:
        return model
    return as_model(model.config, {}, model.state_dict(), kind)


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

    ``base_config`` is a model's whole ``config``; for edits of a ``kind`` that is none of
    :data:`STOCK` none is found. Module paths are those of the edited denoiser, but for what
    :func:`diffnas.student.needs.name_in_stock` says. What a config can say: whatever each block
    needs, as long as blocks need the same of an entry that they share.
    """
    config = _public(base_config)
    if not edits or kind not in STOCK:
        return None if edits else config
    needed: dict[str, Any] = {}
    for block in block_names(config):
        found = needs(config, block, inside(block, edits))
        if found is None or any(needed.get(name, each) != each for name, each in found.items()):
            return None
        needed |= found
    known = sum(len(inside(block, edits)) for block in block_names(config))
    return with_needs(config, needed) if known == len(edits) else None


def inside(block: str, edits: Edits) -> dict[str, Mapping[str, Any]]:
    """The edits of a block's modules, by their paths inside it."""
    return {
        path.removeprefix(f"{block}."): edit
        for path, edit in edits.items()
        if path.startswith(f"{block}.")
    }


def _public(config: Mapping[str, Any]) -> dict[str, Any]:
    """The entries that a model is made from, without diffusers' notes e.g. of its origin."""
    return {
        key: value for key, value in config.items() if not key.startswith("_") and key != "auto_map"
    }
