"""What configs tell of a pipeline, or of a denoiser alone, and whether it is supported."""

from types import SimpleNamespace
from typing import Any

import diffusers
import torch
from diffusers import ModelMixin, SchedulerMixin
from torch import nn

from diffnas.errors import UserError
from diffnas.families import (
    Family,
    Teacher,
    autoencoder,
    dit,
    flux,
    flux2,
    origin,
    pixart,
    sd3,
    unet2d,
    unet2d_condition,
)
from diffnas.families.noise import unsupported_noise
from diffnas.families.origin import Origin
from diffnas.refusing import refusing
from diffnas.student import modeling
from diffnas.student.saving import check_config, components

FAMILIES: tuple[Family, ...] = (
    unet2d.FAMILY,
    unet2d_condition.FAMILY,
    dit.FAMILY,
    pixart.FAMILY,
    sd3.FAMILY,
    flux.FAMILY,
    flux2.FAMILY,
)

RENAMED = {"Transformer2DModel": "transformer"}
"""Components by a class's former name: DiT and PixArt are published under it, and diffusers makes
of a config the class that it is called now."""

Index = dict[str, tuple[str, str]]
"""A pipeline's components: name to (library, class)."""


def skeleton(source: Origin) -> Teacher:
    """A teacher on the meta device; ``pipeline`` holds denoiser, scheduler and autoencoder.

    Without ``model_index.json`` a denoiser's ``config.json`` is enough, and it is alone there.

    Raises:
        UserError: the pipeline is incomplete, or it or the denoiser is not supported.
    """
    values = origin.get_json(source, "model_index.json")
    whole = values is not None
    values = values or {}
    index = components(values) if whole else _alone(source)
    component = _component(source, index)
    kind = _denoiser_class(source, component, index[component])
    # Beside a denoiser alone may lie another, in a folder of the component's name.
    config = (
        _config(source, component, "config.json")
        if whole
        else origin.get_json(source, "config.json")
    )
    if config is None:
        raise UserError(
            f"model {source.model}: {component}/config.json is missing; "
            "copy or download the whole pipeline"
        )
    check_config(config, source.model)
    what = f"model {source.model}: its {component} cannot be made from its config"
    with refusing(what), torch.device("meta"):
        denoiser = kind.from_config(config)
    family = _family(source, denoiser)
    name = str(values.get("_class_name"))
    why = family.supports(denoiser)
    parts = {component: denoiser}
    if whole:
        why = (
            why
            or _otherwise(name, family)
            or _beside(denoiser, family, index)
            or family.fits(denoiser)
        )
    if whole and why is None:
        coder = _autoencoder(source, index)
        parts |= coder
        why = _unfit(family.sample_shape(denoiser)[0], *coder.values())
    scheduler = _scheduler(source, index)
    if scheduler is not None:
        why = why or unsupported_noise(family.scheduler(denoiser, scheduler).config)
    if why is not None:
        raise UserError(f"model {source.model}: {why}")
    kind = getattr(diffusers, name, SimpleNamespace)
    pipeline = SimpleNamespace(**parts, scheduler=scheduler, kind=kind, config=values)
    return Teacher(source.model, pipeline, frozen(denoiser), family, alone=not whole)


def _alone(source: Origin) -> Index:
    """The index of a pipeline that would hold nothing but the denoiser of ``config.json``."""
    name = (origin.get_json(source, "config.json") or {}).get("_class_name")
    if name in RENAMED:
        return {RENAMED[name]: ("diffusers", name)}
    for family in FAMILIES:
        for kind in family.classes:
            if kind.__name__ == name:
                return {family.component: (kind.__module__.partition(".")[0], name)}
    why = origin.part_of_a_run(source) or (
        "no model_index.json, so no diffusers pipeline, nor the config.json of a supported "
        "denoiser; give the folder or Hub id of a whole pipeline"
    )
    raise UserError(f"model {source.model}: {why}")


def _component(source: Origin, index: Index) -> str:
    """The name of the denoiser among a pipeline's components."""
    known = dict.fromkeys(family.component for family in FAMILIES)
    for component in known:
        if component in index:
            return component
    names = ", ".join(f"{name} ({kind})" for name, (_, kind) in index.items()) or "nothing"
    raise UserError(
        f"model {source.model}: no denoiser that is supported, a component named "
        f"{' or '.join(known)}; the pipeline holds {names}"
    )


def _family(source: Origin, denoiser: nn.Module) -> Family:
    """The family that has this very class, which need not be the one that the index names."""
    # A subclass may compute more than its blocks do, and a student would lose that.
    for family in FAMILIES:
        if type(denoiser) in family.classes:
            return family
    known = ", ".join(each.classes[0].__name__ for each in FAMILIES)
    raise UserError(
        f"model {source.model}: {type(denoiser).__name__} is not supported; supported are {known} "
        "denoisers"
    )


def _otherwise(name: str, family: Family) -> str | None:
    """Say that such a pipeline does something else with its denoiser; None if it does not."""
    if not family.pipelines or name in family.pipelines:
        return None
    return (
        f"a {name} does more than make images from texts with its {family.component}; supported "
        f"are {' and '.join(family.pipelines)}"
    )


def _denoiser_class(source: Origin, component: str, entry: tuple[str, str]) -> Any:
    library, name = entry
    if library.startswith("diffnas_student_"):
        if (kind := getattr(modeling, name, None)) is None:
            raise UserError(f"model {source.model}: class {name} is unknown; upgrade diffnas")
        return kind
    if library == "diffusers":
        kind = _diffusers_class(name, ModelMixin)
        if kind is None:
            raise UserError(
                f"model {source.model}: {name} is no model of diffusers {diffusers.__version__}; "
                "upgrade diffusers or choose another model"
            )
        return kind
    raise UserError(
        f"model {source.model}: its {component} is made by code of its own, {library}.py, which a "
        "student would not have; supported are denoisers of diffusers' own classes"
    )


def _scheduler(source: Origin, index: Index) -> Any:
    """The scheduler, or None where the pipeline has none or its config is not there."""
    _, name = index.get("scheduler", (None, ""))
    config = _config(source, "scheduler", "scheduler_config.json") if name else None
    if config is None:
        return None
    kind = _diffusers_class(name, SchedulerMixin)
    if kind is None:
        raise UserError(
            f"model {source.model}: scheduler {name} is none of diffusers'; save the pipeline with "
            "one of theirs, e.g. DDPMScheduler"
        )
    with refusing(f"model {source.model}: its scheduler cannot be made from its config"):
        return kind.from_config(config)


def _diffusers_class(name: str, base: type) -> Any:
    kind = getattr(diffusers, name, None)
    return kind if isinstance(kind, type) and issubclass(kind, base) else None


def _config(source: Origin, component: str, name: str) -> dict[str, Any] | None:
    """A component's config; early pipelines (google/ddpm-cifar10-32) have all in one folder."""
    found = origin.get_json(source, f"{component}/{name}")
    return origin.get_json(source, name) if found is None else found


def _beside(denoiser: nn.Module, family: Family, index: Index) -> str | None:
    texts = family.encoders(denoiser) if family.takes_texts else ()
    lacking = [name for name in texts if name not in index]
    if lacking:
        return f"it has no {' and no '.join(lacking)}, which what it is told goes through"
    known = (family.component, "scheduler", *autoencoder.COMPONENTS, *family.beside)
    others = [name for name in index if name not in known]
    if not others:
        return None
    also = f", {', '.join(family.beside)}" if family.beside else ""
    return (
        f"its {family.component} works together with {', '.join(others)}; supported are pipelines "
        f"of a {family.component}, a scheduler and perhaps an autoencoder{also}"
    )


def _autoencoder(source: Origin, index: Index) -> dict[str, Any]:
    """The autoencoder on the meta device, by its name; nothing where pixels are denoised."""
    for component in autoencoder.COMPONENTS:
        if component not in index:
            continue
        library, name = index[component]
        if library != "diffusers" or name not in autoencoder.CLASSES:
            raise UserError(
                f"model {source.model}: its {component} is a {name} of {library}; supported are "
                f"{', '.join(autoencoder.CLASSES)} of diffusers"
            )
        config = origin.get_json(source, f"{component}/config.json")
        if config is None:
            raise UserError(
                f"model {source.model}: {component}/config.json is missing; "
                "copy or download the whole pipeline"
            )
        what = f"model {source.model}: its {component} cannot be made from its config"
        with refusing(what), torch.device("meta"):
            return {component: getattr(diffusers, name).from_config(config)}
    return {}


def _unfit(channels: int, coder: Any = None) -> str | None:
    """Say why a denoiser of so many channels cannot be trained on images; None if it can."""
    if coder is None:
        if channels in (1, 3):
            return None
        return (
            f"its images have {channels} channels and it has no autoencoder; supported are models "
            "of pixels, with 1 (grey) or 3 (colour), or of an autoencoder's latents"
        )
    if coder.config.in_channels not in (1, 3):
        return f"its autoencoder's images have {coder.config.in_channels} channels, not 1 or 3"
    if any(coder.config.get(f"latents_{name}") is not None for name in ("mean", "std")):
        # Some pipelines that could have it go by these entries, some do not.
        return "its autoencoder has latents_mean and latents_std, which are not supported"
    if (own := autoencoder.latent_channels(coder)) != channels:
        return f"its autoencoder's latents have {own} channels, its denoiser takes {channels}"
    return None


def frozen(denoiser: nn.Module) -> nn.Module:
    """The denoiser itself, in eval mode and without gradients."""
    return denoiser.eval().requires_grad_(False)
