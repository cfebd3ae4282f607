"""Teachers from a name: the built-in digits, a pipeline folder, or a repository of the Hub."""

import importlib
import inspect
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline

from diffnas.errors import UserError
from diffnas.families import Teacher, origin
from diffnas.families.autoencoder import COMPONENTS, autoencoder_of
from diffnas.families.skeleton import frozen, skeleton
from diffnas.families.text_encoders import text_encoders
from diffnas.refusing import refusing
from diffnas.student import saving


def load_teacher(
    model: str,
    *,
    device: str | torch.device = "cpu",
    revision: str | None = None,
    variant: str | None = None,
    trust_remote_code: bool = False,
) -> Teacher:
    """A pipeline, its denoiser on the device in float32, frozen and in eval mode.

    ``model``: ``digits``, a diffusers pipeline folder, or a Hub id; ``revision`` is of the Hub.
    Whether it can be searched is found out from its configs, before weights are read or fetched.
    Only safetensors are read. Code from the pipeline runs only with ``trust_remote_code``.

    Raises:
        UserError: no such pipeline, it is incomplete or damaged (weights that are not finite
            included), is a denoiser alone, or it is not supported.
        ModuleNotFoundError: it has text encoders, and transformers is not installed.
    """
    source = origin.find(model, revision)
    known = skeleton(source)
    _check_whole(known)
    if known.family.takes_texts:
        importlib.import_module("transformers")  # without it diffusers would only say so in part
    folder = origin.get_folder(source, variant, trust_remote_code)
    if known.family.takes_texts and _sentence_pieces_alone(folder):
        importlib.import_module("sentencepiece")
    index = saving.read_json(folder / "model_index.json")
    pipeline = _load(folder, index, known, variant, trust_remote_code)
    denoiser = getattr(pipeline, known.family.component).to(torch.device(device)).float()
    _check_finite(model, denoiser)
    if (coder := autoencoder_of(pipeline)) is not None:
        _check_finite(model, frozen(coder))
    for name in known.family.beside:
        if isinstance(part := getattr(pipeline, name, None), torch.nn.Module):
            _check_finite(f"{model}, {name}", frozen(part))
    _keep_values(index, pipeline)
    return Teacher(model, pipeline, frozen(denoiser), known.family)


def load_skeleton(model: str, *, revision: str | None = None) -> Teacher:
    """A teacher without weights: its denoiser is on the meta device, made from its config.

    Needs ``model_index.json`` and the ``config.json`` of denoiser, autoencoder and text encoders
    only, and fetches no more from the Hub; text encoders may lack theirs. ``pipeline`` holds these,
    the scheduler (None without its config) and no more. Without
    ``model_index.json`` the ``config.json`` of a denoiser alone is enough. Variants of
    weights share their configs, and no code is run.

    Raises:
        UserError: no such pipeline, it is incomplete or damaged, or it is not supported.
    """
    source = origin.find(model, revision)
    found = skeleton(source)
    encoders = text_encoders(source, saving.components(found.pipeline.config))
    vars(found.pipeline).update(encoders)
    return found


def lacking(skeleton: Teacher, variant: str | None = None) -> list[str]:
    """Why :func:`load_teacher` would refuse what is enough for a skeleton.

    Whether the denoiser's weights are there is known of folders only, and is asked of pipelines.
    """
    checks = [partial(_check_whole, skeleton)]
    folder = origin.find(skeleton.source).folder
    if folder is not None and not skeleton.alone:
        place = _place(folder, skeleton.family.component)
        checks.append(partial(_check_weights, place, skeleton.source, variant))
    found = []
    for check in checks:
        try:
            check()
        except UserError as refusal:
            found.append(str(refusal))
    return found


def _sentence_pieces_alone(folder: Path) -> bool:
    """Whether a tokenizer is given in T5's first form only, which takes a package of its own."""
    return any(
        not file.with_name("tokenizer.json").exists() for file in folder.glob("*/spiece.model")
    )


def _keep_values(index: Mapping[str, Any], pipeline: Any) -> None:
    """Let a pipeline keep what its ``model_index.json`` told it, the names of classes for example.

    Some pipelines take such values and forget them: a student saved with it would not have them.
    """
    taken = inspect.signature(type(pipeline).__init__).parameters
    values = {
        name: value
        for name, value in index.items()
        if name in taken and name not in pipeline.config
    }
    if values:
        pipeline.register_to_config(**values)


def _load(
    folder: Path,
    index: Mapping[str, Any],
    known: Teacher,
    variant: str | None,
    trust_remote_code: bool,
) -> Any:
    component = known.family.component
    inner = _place(folder, component)
    _check_weights(inner, known.source, variant)
    if inner != folder and not trust_remote_code:
        return saving.load_as_stored(folder, variant)
    given: dict[str, Any] = dict(saving.left_out(index))
    parts = saving.components(index)
    given |= saving.text_encoders(folder, parts, variant)
    with refusing(f"model {known.source} cannot be loaded"):
        for name in (component, *COMPONENTS):
            if (part := getattr(known.pipeline, name, None)) is None:
                continue
            # A student's class is our own, whatever code its folder brings.
            place = inner if name == component else folder / name
            # diffusers leaves layers without stored weights at random, with a warning.
            given[name], report = type(part).from_pretrained(
                place,
                use_safetensors=True,
                variant=saving.stored_variant(place, variant),
                output_loading_info=True,
            )
            saving.check_fit(report, known.source)
        saving.know_our_modules(parts)
        return DiffusionPipeline.from_pretrained(
            folder,
            use_safetensors=True,
            variant=variant,
            trust_remote_code=trust_remote_code,
            **given,
        )


def _place(folder: Path, component: str) -> Path:
    """Where a component's files are; early pipelines have all in one folder."""
    return folder / component if (folder / component).is_dir() else folder


def _check_whole(known: Teacher) -> None:
    if known.alone:
        raise UserError(
            f"model {known.source}: no model_index.json, so no diffusers pipeline, but a denoiser "
            "alone, which can only be planned; give the folder or Hub id of a whole pipeline, with "
            "its scheduler and, where it has them, autoencoder and text encoders"
        )
    if known.pipeline.scheduler is None:
        raise UserError(
            f"model {known.source}: no scheduler; save the pipeline again with the scheduler it "
            "was trained with"
        )


def _check_weights(folder: Path, model: str, variant: str | None) -> None:
    """Refuse weights but safetensors, and those of other variants than the one asked for."""
    if not any(folder.glob("*.safetensors")):
        others = any(file.suffix in (".bin", ".ckpt", ".pt", ".pth") for file in folder.iterdir())
        raise UserError(origin.no_safetensors(model, others=others))
    saving.check_variant(folder, f"model {model}", variant)


def _check_finite(model: str, denoiser: torch.nn.Module) -> None:
    for name, value in denoiser.state_dict().items():
        if not bool(value.isfinite().all()):
            raise UserError(
                f"model {model}: its weights are not all finite, e.g. {name}; "
                "take another checkpoint of it"
            )
