"""Students as diffusers pipeline folders: written whole or not at all, read without their code."""

import importlib
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
from diffusers import DiffusionPipeline, ModelMixin
from safetensors import SafetensorError, safe_open

from diffnas.checkpoint import check_readable, new_folder
from diffnas.errors import UserError
from diffnas.refusing import first_sentence, refusing
from diffnas.student import modeling

PIPELINE = ("model_index.json", "a pipeline folder")
"""The file that says of a folder what it is, and what."""

UNUSED = {"caption_projection.y_embedding"}
"""In published files without a place in the model: of PixArt-alpha's training, never read again."""

_OUR_MODULE = re.compile(r"diffnas_student_[0-9a-f]{12}")


def save_pipeline(
    pipeline: Any, folder: Path, model_card: str | None = None, *, ours: bool = False
) -> None:
    """Write a diffusers pipeline folder; ``model_card`` becomes its README.md.

    The folder appears when it is complete; a pipeline that was there before is replaced, and what
    is left of one where it is known to be ``ours``.

    Raises:
        UserError: something that is not a pipeline is in the way.
        RunError: the disk is full or refuses.
    """
    with new_folder(folder, *PIPELINE, ours=ours) as new:
        pipeline.save_pretrained(new, safe_serialization=True)
        if model_card is not None:
            (new / "README.md").write_text(model_card, encoding="utf-8")


def load(folder: str | Path, *, variant: str | None = None) -> Any:
    """The diffusers pipeline in a folder, ready to be called: a student's, or any ordinary one.

    No code from the folder is run and only safetensors are read: a student's class is this
    library's own. All models are of one type, that of the denoiser. ``variant``: of the weights,
    'fp16' for example; parts that have no such ones are loaded from their plain ones.

    Raises:
        UserError: the folder is no pipeline, is incomplete or damaged, may not be read, or needs
            its own code.
    """
    pipeline = load_as_stored(folder, variant)
    parts = pipeline.components
    denoiser = parts.get("unet") or parts.get("transformer")
    for name, part in parts.items():
        # Often stored in half precision: what they make of texts would not fit the denoiser.
        if name.startswith("text_encoder") and part is not None and denoiser is not None:
            part.to(denoiser.dtype)
    return pipeline


def load_as_stored(folder: str | Path, variant: str | None = None) -> Any:
    """The pipeline as :func:`load` reads it, but its text encoders are of the type of their files.

    Raises:
        UserError: as :func:`load`.
    """
    folder = Path(folder).expanduser()
    index = _read_index(folder)
    classes = {name: _class(folder, name, *entry) for name, entry in index.items()}
    for file in sorted(folder.glob("*/*.safetensors")):
        _check_weights(file)
    for name in {"unet", "transformer"} & index.keys():
        check_variant(folder / name, f"pipeline {folder}", variant)
    models = {
        name: _load_model(folder / name, kind, variant) for name, kind in classes.items() if kind
    }
    models |= text_encoders(folder, index, variant)
    know_our_modules(index)
    absent = left_out(read_json(folder / "model_index.json"))
    with refusing(f"{folder} cannot be loaded"):
        return DiffusionPipeline.from_pretrained(
            folder, use_safetensors=True, variant=variant, **models, **absent
        )


def load_component(folder: Path, name: str) -> Any:
    """One model of diffusers in a pipeline folder, as :func:`load` reads it.

    Raises:
        UserError: as :func:`load`.
    """
    entry = _read_index(folder)[name]
    for file in sorted((folder / name).glob("*.safetensors")):
        _check_weights(file)
    return _load_model(folder / name, _class(folder, name, *entry))


def _read_index(folder: Path) -> dict[str, tuple[str, str]]:
    """The components that are present, as (library, class); each has its folder."""
    if not folder.is_dir():
        raise UserError(f"pipeline {folder}: not a folder; give one with a model_index.json")
    index = components(read_json(folder / "model_index.json"))
    for name in index:
        if not (folder / name).is_dir():
            raise UserError(
                f"pipeline {folder}: the folder {name}/ that model_index.json names is missing;"
                " copy or download the whole pipeline"
            )
    if not any("scheduler" in name for name in index):
        raise UserError(
            f"pipeline {folder}: model_index.json names no scheduler;"
            " save the pipeline again with its scheduler"
        )
    return index


def components(model_index: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """The components that a ``model_index.json`` names, as (library, class)."""
    return {
        name: (entry[0], entry[1])
        for name, entry in model_index.items()
        if not name.startswith("_")
        and isinstance(entry, list)
        and len(entry) == 2
        and all(isinstance(part, str) for part in entry)
    }


def text_encoders(
    folder: Path, index: Mapping[str, tuple[str, str]], variant: str | None = None
) -> dict[str, Any]:
    """A pipeline's text encoders whose weights are all there, in the type of their files.

    transformers on its own leaves layers without stored weights at random, with a warning.

    Raises:
        UserError: weights are missing or do not fit.
    """
    found = {}
    for name, (library, class_name) in index.items():
        if library != "transformers" or not name.startswith("text_encoder"):
            continue
        kind = getattr(importlib.import_module("transformers"), class_name)
        with refusing(f"{folder / name} cannot be loaded"):
            model, report = kind.from_pretrained(
                folder / name,
                use_safetensors=True,
                variant=stored_variant(folder / name, variant),
                output_loading_info=True,
            )
        # Their files often hold more than is asked for, such as heads for other tasks.
        check_fit({**report, "unexpected_keys": ()}, folder / name)
        found[name] = model.eval()
    return found


def check_variant(folder: Path, what: str, variant: str | None) -> None:
    """Raise UserError if the weights in a folder are of other variants than the one asked for."""
    files = [file.name for file in folder.glob("*.safetensors")]
    # NAME.safetensors or NAME.VARIANT.safetensors, with -00001-of-00002 behind when sharded.
    found = {name.split(".")[1].partition("-0")[0] for name in files if name.count(".") > 1}
    plain = any(name.count(".") == 1 for name in files)
    if variant is None and found and not plain:
        raise UserError(f"{what}: all its weights are variants; give --variant {min(found)}")
    if variant is not None and variant not in found:
        names = ", ".join([*(["plain ones"] if plain else []), *sorted(found)]) or "none"
        raise UserError(f"--variant {variant}: {what} has no such weights; it has {names}")


def stored_variant(folder: Path, variant: str | None) -> str | None:
    """The variant, if a component has its weights in it; else its plain ones are meant."""
    return variant if any(folder.glob(f"*.{variant}*.safetensors")) else None


def know_our_modules(index: Mapping[str, tuple[str, str]]) -> None:
    """Let diffusers find the classes of students under whichever module names an index has."""
    for library, _ in index.values():
        if _OUR_MODULE.fullmatch(library):
            sys.modules.setdefault(library, modeling)


def left_out(model_index: Mapping[str, Any]) -> dict[str, None]:
    """The components that it says are not there: some classes must be told so again on loading."""
    return {name: None for name, entry in model_index.items() if entry == [None, None]}


def check_config(config: Mapping[str, Any], where: object) -> None:
    """Raise UserError for a model's config that a newer DiffNAS wrote, or of quantized weights."""
    if config.get("edits_format", 1) > modeling.EDITS_FORMAT:
        raise UserError(
            f"model {where}: edits_format {config['edits_format']} is newer than "
            f"{modeling.EDITS_FORMAT}, this version's; upgrade diffnas"
        )
    if (how := config.get("quantization_config")) is not None:
        raise UserError(
            f"model {where}: its weights are quantized ({how.get('quant_method', 'unknown')}); "
            "give it as it was before, or use this one in diffusers"
        )


def check_fit(report: Mapping[str, Any], where: object) -> None:
    """Raise UserError if diffusers' loading report says that weights and config differ."""
    for complaint in ("missing", "unexpected", "mismatched"):
        if keys := sorted(set(map(str, report[f"{complaint}_keys"])) - UNUSED):
            raise UserError(
                f"model {where}: the weights do not fit config.json: {len(keys)} {complaint}, "
                f"e.g. {keys[0]}; copy or save the pipeline again"
            )


def _class(folder: Path, name: str, library: str, class_name: str) -> Any:
    """The class of a denoiser or other diffusers model; None for what diffusers loads itself."""
    if _OUR_MODULE.fullmatch(library):
        kind = getattr(modeling, class_name, None)
        if kind is None:
            raise UserError(
                f"pipeline {folder}: {name} is a {class_name}, which this version of DiffNAS does"
                " not know; upgrade diffnas"
            )
        return kind
    if (folder / name / f"{library}.py").is_file():
        raise UserError(
            f"pipeline {folder}: {name} brings its own code, {library}.py, which is not run here;"
            " if you trust it, use diffusers with trust_remote_code=True"
        )
    kind = getattr(diffusers, class_name, None) if library == "diffusers" else None
    return kind if isinstance(kind, type) and issubclass(kind, ModelMixin) else None


def _check_weights(file: Path) -> None:
    check_readable(file)
    try:
        with safe_open(file, framework="pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"weights {file}: damaged or incomplete ({first_sentence(error)});"
            " copy or download the file again"
        ) from None


def _load_model(folder: Path, kind: Any, variant: str | None = None) -> Any:
    """A model whose weights are all and only those of its config.

    diffusers on its own leaves layers without stored weights at random, with a warning.
    """
    saved = read_json(folder / "config.json")
    check_config(saved, folder)
    if saved.get("edits") and not issubclass(kind, modeling.EditedModel):
        raise UserError(
            f"model {folder}: config.json has edits, but model_index.json names the stock"
            f" {kind.__name__}; save the pipeline again with diffnas"
        )
    with refusing(f"{folder} cannot be loaded"):
        model, report = kind.from_pretrained(
            folder,
            use_safetensors=True,
            variant=stored_variant(folder, variant),
            output_loading_info=True,
        )
    check_fit(report, folder)
    return model


def read_json(file: Path) -> dict[str, Any]:
    """The values of a JSON file; UserError if it holds none."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"{file}: {error.strerror}; give a complete pipeline folder that can be read"
        ) from None
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise UserError(f"{file}: not a JSON object; copy or download the file again")
    return values
