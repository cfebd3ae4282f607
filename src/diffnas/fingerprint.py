"""Short names for content: what was made from the same things has the same fingerprint."""

import hashlib
import inspect
import json
from typing import Any

import numpy as np
import torch

from diffnas.data import Data
from diffnas.families import Teacher

HASHED = 2**28
"""Bytes of images that are hashed whole; of larger sets, evenly spread images of that size."""


def fingerprint(*parts: Any) -> str:
    """16 hex digits of plain values (JSON's, tuples, paths)."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def of_teacher(teacher: Teacher) -> str:
    """Of a teacher's configs and weights, those of its autoencoder included."""
    coder = teacher.coder
    return fingerprint(
        _weights(teacher.denoiser),
        _config(teacher.denoiser),
        _config(teacher.pipeline.scheduler),
        *([] if coder is None else [of_module(coder)]),
        *([of_texts(teacher)] if teacher.family.takes_texts else []),
    )


def of_texts(teacher: Teacher) -> str:
    """Of its tokenizers and text encoders, and of what the pipeline says of empty prompts."""
    parts: dict[str, Any] = {}
    for name, part in teacher.pipeline.components.items():
        if part is not None and name.startswith("text_encoder"):
            parts[name] = [_weights(part), _text_config(part)]
        elif part is not None and name.startswith("tokenizer"):
            parts[name] = _words(part)
    return fingerprint(parts, teacher.pipeline.config.get("force_zeros_for_empty_prompt"))


def _words(tokenizer: Any) -> list[Any]:
    """All that what a tokenizer makes of texts hangs on."""
    told = ("model_max_length", "special_tokens_map", "chat_template")
    own = [type(tokenizer).__name__, *(getattr(tokenizer, name, None) for name in told)]
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return [*own, tokenizer.get_vocab()]
    # How long texts were cut and filled at its last call stays in it.
    rules = json.loads(backend.to_str())
    return [*own, {key: rules[key] for key in rules if key not in ("truncation", "padding")}]


def _text_config(encoder: Any) -> dict[str, Any]:
    """What was set in its config; where it came from and which version wrote it are left out."""
    values = encoder.config.to_diff_dict()
    notes = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "architectures")
    return {name: value for name, value in values.items() if name not in notes}


def of_module(module: Any) -> str:
    """Of a diffusers model's config and weights."""
    return fingerprint(_weights(module), _config(module))


def _weights(module: Any) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(
            value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        )
    return digest.hexdigest()


def of_data(data: Data) -> str:
    """Of a data set's images, split and augmentation."""
    digest = _pixels(data)
    digest.update(data.seen.tobytes())
    if data.labels is not None:
        digest.update(data.labels.tobytes())
    told: list[Any] = [part for part in (data.captions, data.condition_dropout) if part]
    told += [
        (of_images(part), hashlib.sha256(part.seen.tobytes()).hexdigest()) for part in data.buckets
    ]
    return fingerprint(digest.hexdigest(), data.images.shape, data.augment, *told)


def of_images(data: Data) -> str:
    """Of a data set's images and their augmentation alone."""
    return fingerprint(_pixels(data).hexdigest(), data.images.shape, data.augment)


def _pixels(data: Data) -> Any:
    count = max(1, min(len(data.images), HASHED // max(1, data.images[0].nbytes)))
    probes = np.unique(np.linspace(0, len(data.images) - 1, count).astype(int))
    digest = hashlib.sha256()
    for start in range(0, len(probes), 1024):
        digest.update(np.ascontiguousarray(data.images[probes[start : start + 1024]]).tobytes())
    return digest


def _config(component: Any) -> tuple[str, dict[str, Any]]:
    """A component's class, and what its config says beyond the class's defaults.

    Defaults are left out because a later diffusers has more of them. Entries that the class does
    not know are in: samplers made from a scheduler's config may. Names with an underscore are
    diffusers' notes of where a config came from and which version wrote it.
    """
    kind = type(component)
    # As JSON, because a file has lists where a class has tuples.
    defaults = {
        name: fingerprint(argument.default)
        for name, argument in inspect.signature(kind).parameters.items()
    }
    return kind.__name__, {
        key: value
        for key, value in component.config.items()
        if not key.startswith("_") and fingerprint(value) != defaults.get(key)
    }
