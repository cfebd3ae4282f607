"""A pipeline's text encoders without weights, of which a forecast takes size and work."""

import importlib
import importlib.util
from collections.abc import Mapping
from typing import Any

import torch

from diffnas.families import origin
from diffnas.families.origin import Origin
from diffnas.refusing import refusing


def text_encoders(source: Origin, index: Mapping[str, tuple[str, str]]) -> dict[str, Any]:
    """Those whose configs are there, on the meta device in the type of their files, by name.

    ``index``: the pipeline's components, name to (library, class).

    Raises:
        UserError: one cannot be made from its config.
    """
    found: dict[str, Any] = {}
    if importlib.util.find_spec("transformers") is None:
        return found
    for name, (library, kind) in index.items():
        if library != "transformers" or not name.startswith("text_encoder"):
            continue
        of_kind = getattr(importlib.import_module(library), kind, None)
        config = origin.get_json(source, f"{name}/config.json")
        if of_kind is None or config is None:
            continue
        what = f"model {source.model}: its {name} cannot be made from its config"
        with refusing(what), torch.device("meta"):
            encoder = of_kind(of_kind.config_class.from_dict(config))
        stored = config.get("dtype") or config.get("torch_dtype") or "float32"
        found[name] = encoder.to(getattr(torch, stored, torch.float32)).eval()
    return found
