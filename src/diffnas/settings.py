"""All that can be set, one model per stage, validated once, at the door.

Defaults that depend on the model or the data are ``None`` here and are resolved, with their
reason, in :mod:`diffnas.defaults`.
"""

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from diffnas.errors import UserError

Precision = Literal["fp32", "bf16", "fp16"]
TeacherPrecision = Literal["fp32", "bf16"]
Positive = Annotated[int, Field(gt=0, lt=2**31)]
PositiveFloat = Annotated[float, Field(gt=0)]
Ratio = Annotated[float, Field(gt=0, le=1)]


class Section(BaseModel):
    """A group of settings: no unknown keys, no infinities, and no changes in place."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _one_alone(cls, value: Any, info: ValidationInfo) -> Any:
        """A list's only member may be given as it is."""
        kind = cls.model_fields[str(info.field_name)].annotation
        return (
            (value,)
            if get_origin(kind) is tuple and isinstance(value, str | int | float)
            else value
        )

    @field_validator("*", mode="before")
    @classmethod
    def _no_truths(cls, value: Any, info: ValidationInfo) -> Any:
        """``yes`` is true in YAML, and true is 1 in Python: no number was meant."""
        kind = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and bool not in (kind, *get_args(kind)):
            raise ValueError("must be no true or false")
        return value


class DataSettings(Section):
    """Which images, and how they are split."""

    held_out: float = Field(0.2, gt=0, lt=1, description="share of images never trained on")
    split_by: Literal["file", "folder"] = Field(
        "file", description="'folder' keeps all files of one folder on one side of the split"
    )
    crop: Literal["centre", "buckets"] = Field(
        "centre", description="'buckets': images are trained on in the shape nearest to their own"
    )
    augment: Literal["auto", "none", "flip", "digits"] = Field(
        "auto", description="'auto': 'digits' for the built-in digits, 'flip' otherwise"
    )
    image_column: str | None = Field(None, description="Hub data sets: the column with the images")
    label_column: str | None = Field(None, description="Hub data sets: the column with the classes")
    caption_column: str | None = Field(
        None, description="Hub data sets and metadata.jsonl: the captions, 'text' unless named"
    )
    prompts: str | None = Field(
        None, description="for the teacher's own samples: a text file of captions, one a line"
    )
    condition_dropout: float | None = Field(
        None, ge=0, le=1, description="share of images trained on without their class or caption"
    )
    limit: Positive | None = Field(None, description="use at most this many images")
    streaming: bool = Field(
        False, description="Hub data sets: fetch no more than data.limit images"
    )

    def loading(self) -> dict[str, Any]:
        """What :func:`diffnas.data.load_data` takes of these."""
        return self.model_dump(exclude={"crop", "prompts", "condition_dropout"})


OF_FULL = (
    *("resnet_widths", "resnet_kernels", "resnet_skip", "attention_heads"),
    *("feed_forward_widths", "modulation_ranks", "conv_ranks", "conv_min_share"),
)
"""Settings of the space that the preset 'full' alone reads."""

UNREAD = {
    "paper": (*OF_FULL, "transformer_layers", "transformer_skip"),
    "stock": (*OF_FULL, "multiple_of"),
}
"""Preset -> settings of the space that mean nothing under it."""


class SpaceSettings(Section):
    """The search space: which options every kind of slot has. The teacher's own is always one."""

    preset: Literal["full", "paper", "stock"] = Field(
        "full",
        description="'paper': kernels only; 'stock': what a stock diffusers config can express",
    )
    trunk: Ratio | None = Field(
        None,
        description="share of their norm groups that the streams between layers keep, everywhere",
    )
    resnet_widths: tuple[Annotated[float, Field(gt=0, le=2)], ...] = Field(
        (0.75, 0.5, 0.25), description="inner width of a ResNet layer over the teacher's, up to 2"
    )
    resnet_kernels: tuple[Literal[1, 3, 5], ...] = Field(
        (1,), description="other kernel sizes of a ResNet layer's two convolutions"
    )
    resnet_skip: bool = Field(True, description="a ResNet layer may be left out")
    attention_heads: tuple[Annotated[float, Field(ge=0, lt=1)], ...] = Field(
        (0.5, 0.0), description="share of the attention heads kept; 0 leaves the layer out"
    )
    feed_forward_widths: tuple[Ratio, ...] = Field(
        (0.5, 0.25), description="inner width of a transformer's feed-forwards over the teacher's"
    )
    modulation_ranks: tuple[Ratio, ...] = Field(
        (0.25,), description="what a transformer layer's norms are told, of this rank"
    )
    transformer_layers: tuple[Ratio, ...] = Field(
        (0.5,), description="share of its layers that a UNet's transformer keeps"
    )
    transformer_skip: bool = Field(True, description="a UNet's transformer may be left out")
    conv_ranks: tuple[Ratio, ...] = Field(
        (0.5, 0.25), description="resampling convolutions as a product of two, of this rank"
    )
    conv_min_share: float = Field(
        0.02, ge=0, le=1, description="a lone convolution is a slot from this share of MACs on"
    )
    include: tuple[str, ...] = Field(
        ("*",), description="patterns of the slots to search, such as 'up_blocks.*.resnets.*'"
    )
    exclude: tuple[str, ...] = Field((), description="patterns of slots to leave as they are")
    multiple_of: Positive = Field(1, description="widths are multiples of this, for hardware")
    max_subnets: Annotated[int, Field(gt=0)] = Field(
        4096, description="a block's options are thinned to this many"
    )

    @field_validator("*", mode="after")
    @classmethod
    def _no_unread(cls, value: Any, info: ValidationInfo) -> Any:
        """What a preset would pass over in silence was meant for another."""
        name, preset = str(info.field_name), info.data.get("preset")
        changed = value != cls.model_fields[name].default
        if changed and name in UNREAD.get(preset or "", ()):
            raise ValueError(f"the preset {preset!r} does not read it; leave it out, or use 'full'")
        return value


class SupernetSettings(Section):
    """Teacher-fed training of the weight-sharing supernet."""

    steps: Positive | None = Field(None, description="training steps")
    batch_size: Positive | None = None
    learning_rate: PositiveFloat | None = Field(None, description="peak; warmed up, then a cosine")
    weight_decay: float = Field(0.0, ge=0)
    sandwich: bool = Field(
        True, description="beside a random subnet train, in turn, the teacher's own and the least"
    )
    groups: Positive = Field(
        1, description="blocks are trained in so many groups in turn: slower, in less memory"
    )
    block_loss: Literal["residual", "output", "plain"] = Field(
        "residual", description="MSE over Var(y - x), over Var(y), or as it is"
    )


class ScoreSettings(Section):
    """The score table."""

    by: Literal["output", "block"] = Field(
        "output", description="selection goes by the error at the output, or by block losses"
    )
    images: Positive = Field(256, description="images in the fixed validation batch")
    batch_size: Positive | None = Field(None, description="images evaluated at once")
    enumerate: Positive = Field(4096, description="a block of more subnets is searched instead")
    evaluations: Annotated[int, Field(ge=20)] = Field(  # block_search.POPULATION
        2000, description="subnets that such a search looks at, at most"
    )
    candidates: Annotated[int, Field(ge=3)] = Field(
        100, description="subnets of a block whose error at the output is measured"
    )
    output_images: Positive = Field(128, description="images that this is measured on")


class SelectSettings(Section):
    """From scores to an architecture."""

    rule: str = Field("global-exact", description="such as 'local'; see the guide")


DEFAULT_RULE = SelectSettings().rule


class RetrainSettings(Section):
    """Retraining of the student with the dynamic joint loss."""

    steps: Positive | None = Field(None, description="training steps")
    batch_size: Positive | None = None
    optimizer: Literal["adamw", "muon"] = Field(
        "adamw", description="'muon': of linear layers and convolutions, AdamW of all else"
    )
    learning_rate: PositiveFloat | None = Field(None, description="peak; warmed up, then a cosine")
    weight_decay: float = Field(0.0, ge=0)
    schedule: Literal["linear", "cosine", "step", "static", "none"] = Field(
        "cosine", description="how beta rises from block losses (0) to the prediction loss (1)"
    )
    ramp: Ratio = Field(0.3, description="share of the steps after which beta has risen to 1")
    features: Literal["student", "teacher"] = Field(
        "student", description="what feeds each block in the block losses"
    )
    task_weight: float | None = Field(
        None, ge=0, description="weight of the distance to what the data ask for"
    )
    output_weight: float | None = Field(
        None, ge=0, description="weight of the distance to the teacher's prediction"
    )
    snr_gamma: PositiveFloat | None = Field(
        None, description="min-SNR weighting: predictions at little noise count less, from there on"
    )
    init: Literal["supernet", "fresh"] = Field("supernet", description="where weights start")
    ema_decay: float | None = Field(None, gt=0, lt=1, description="of the averaged weights")
    gradient_checkpointing: bool = Field(
        False, description="activations are computed twice, not kept: slower, in less memory"
    )


class EvaluateSettings(Section):
    """The one protocol all rows are measured under."""

    sampler: Literal["ddim", "dpmsolver", "euler", "ddpm", "own"] = Field(
        "dpmsolver", description="'own': the pipeline's scheduler as it is"
    )
    sampler_steps: Positive = 20
    samples: Annotated[int, Field(ge=16, lt=2**31)] = Field(1024, description="images per seed")
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field((0,), min_length=1)
    batch_size: Positive | None = Field(None, description="images sampled at once")
    features: Literal["auto", "digits", "patches", "inception"] = "auto"
    guidance: float | None = Field(
        None, ge=1, description="guidance, 1 is none; the pipeline's own default unless given"
    )

    @field_validator("seeds")
    @classmethod
    def _apart(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        """One seed twice gives the same samples twice, and a deviation that is none."""
        if len(set(seeds)) < len(seeds):
            raise ValueError("must not have one seed twice")
        return seeds


class Settings(Section):
    """Everything. ``diffnas compress --set supernet.steps=500`` names a key of one section."""

    data: DataSettings = DataSettings()
    space: SpaceSettings = SpaceSettings()
    supernet: SupernetSettings = SupernetSettings()
    score: ScoreSettings = ScoreSettings()
    select: SelectSettings = SelectSettings()
    retrain: RetrainSettings = RetrainSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    device: str = "auto"
    precision: Precision = "fp32"
    teacher_precision: TeacherPrecision = Field(
        "fp32", description="of the teacher's frozen weights in both trainings"
    )
    max_steps: Positive | None = Field(None, description="cap on the steps of either training")


def parse(values: Mapping[str, Any]) -> Settings:
    """Settings from nested values, or from values by dotted name.

    Raises:
        UserError: an unknown setting (with the nearest name) or a value out of range.
    """
    return _validated(_nested(values))


def _validated(values: Mapping[str, Any]) -> Settings:
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise UserError(_one_line(error)) from None


def load(path: Path | None = None, assignments: tuple[str, ...] = ()) -> Settings:
    """Settings from a YAML file and ``section.key=value`` assignments, which win.

    Raises:
        UserError: the file cannot be read, or a setting is unknown or out of range.
    """
    values = _nested(_read_yaml(path) if path is not None else {})
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key:
            raise UserError(
                f"--set {assignment}: not of the form KEY=VALUE; e.g. supernet.steps=500"
            )
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            quotes = """; what begins with * needs quotes of its own: KEY='"*"'"""
            raise UserError(
                f"--set {assignment}: the value is not valid YAML{quotes if '*' in text else ''}"
            ) from None
        if type(value) is int:  # as people mean it: in YAML 010 is 8 and 1:30 is 90
            value = int(text) if re.fullmatch(r"[-+]?\d+", text.strip()) else text
        try:
            _put(values, key, value)
        except UserError as error:
            raise UserError(f"--set {assignment}: {error}") from None
    return _validated(values)


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by section, of which some may have dotted names."""
    nested: dict[str, Any] = {}
    for name, value in values.items():
        _put(nested, str(name), value)
    return nested


def _put(values: dict[str, Any], name: str, value: Any) -> None:
    """Set a value by its dotted name; a section's values join those that are there."""
    section, dot, rest = name.partition(".")
    if not dot and not isinstance(value, Mapping):
        values[section] = value
        return
    if values.get(section) is None:  # a section of a file that is empty
        values[section] = {}
    inner = values[section]
    if not isinstance(inner, dict):
        raise UserError(f"{section} is a value, not a section")
    for key, each in {rest: value}.items() if dot else value.items():
        _put(inner, str(key), each)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"--settings {path}: {error.strerror}; name a YAML file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark is not None else ""
        raise UserError(f"--settings {path}: not valid YAML{where}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError(f"--settings {path}: must hold 'section: {{key: value}}' entries")
    return values


_ALLOWED = {
    "literal_error": "must be {expected}",
    "greater_than": "must be above {gt:.10g}",
    "greater_than_equal": "must be {ge:.10g} or more",
    "less_than": "must be below {lt:.10g}",
    "less_than_equal": "must be {le:.10g} or less",
    "too_short": "must not be empty",
    "value_error": "{error}",
    "finite_number": "must be a finite number",
    "int": "must be a whole number",
    "float": "must be a number",
    "bool": "must be true or false",
    "string": "must be text",
    "tuple": "must be a list, such as [a, b]",
    "model": "must be a section of settings, such as {{key: value}}",
}
"""What a value must be, by pydantic's name of the error or the beginning of that name."""


def _one_line(error: ValidationError) -> str:
    first = error.errors()[0]
    path = [str(part) for part in first["loc"] if not isinstance(part, int)]
    name = ".".join(path)
    if first["type"] == "extra_forbidden":
        section = isinstance(first["input"], dict)
        known = list(Settings.model_fields) if section else known_names()
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5) or [
            key for key in known if key.rsplit(".", 1)[-1] == path[-1]
        ]
        hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"
        return f"setting '{name}' is unknown; {hint}"
    kinds = (first["type"], first["type"].partition("_")[0])
    words = (_ALLOWED[kind].format(**first.get("ctx", {})) for kind in kinds if kind in _ALLOWED)
    must = next(words, first["msg"])
    if isinstance(first["input"], str) and "," in first["input"] and len(first["loc"]) > len(path):
        must += f"; a list has brackets: [{first['input']}]"
    return f"setting '{name}' = {first['input']!r}: {must}"


def known_names() -> list[str]:
    """Every setting's dotted name."""
    names = []
    for key, field in Settings.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            names += [f"{key}.{inner}" for inner in kind.model_fields]
        else:
            names.append(key)
    return names


def saved_settings(file: Path) -> dict[str, Any]:
    """A run's own note of its settings; none if it is not there or damaged."""
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, yaml.YAMLError, UnicodeDecodeError):
        return {}
    return values if isinstance(values, dict) else {}
