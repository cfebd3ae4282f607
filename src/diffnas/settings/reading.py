"""Settings as people write them: nested values, dotted names, YAML, ``section.key=value``."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from yaml.constructor import ConstructorError

from diffnas.errors import UserError
from diffnas.settings import text as yaml_text
from diffnas.settings.section import Section
from diffnas.settings.sections import Settings

SECTIONS = {
    name: field.annotation
    for name, field in Settings.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
}
"""The groups of settings, by name."""


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
            value = yaml_text.read(text)
        except yaml.YAMLError:
            quotes = """; what begins with * needs quotes of its own: KEY='"*"'"""
            raise UserError(
                f"--set {assignment}: the value is not valid YAML{quotes if '*' in text else ''}"
            ) from None
        try:
            _put(values, key, value)
        except UserError as error:
            raise UserError(f"--set {assignment}: {error}") from None
    return _validated(values)


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by section, of which some may have dotted names; an empty section is none."""
    nested: dict[str, Any] = {}
    for name, value in values.items():
        if value is not None or str(name) not in SECTIONS:
            _put(nested, str(name), value)
    return nested


def _put(values: dict[str, Any], name: str, value: Any) -> None:
    """Set a value by its dotted name; a section's values join those that are there."""
    section, dot, rest = name.partition(".")
    if not dot and not isinstance(value, Mapping):
        values[section] = value
        return
    inner = values.setdefault(section, {})
    if not isinstance(inner, dict):
        raise UserError(f"{section} is a value, not a section")
    for key, each in {rest: value}.items() if dot else value.items():
        _put(inner, str(key), each)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml_text.read(path.expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"--settings {path}: {error.strerror}; name a YAML file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark is not None else ""
        twice = getattr(error, "problem", None) if type(error) is ConstructorError else None
        what = f": {twice}" if twice else ""
        raise UserError(f"--settings {path}: not valid YAML{where}{what}") from None
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
        beside = [key for key in known if key.startswith(f"{path[0]}.")] or Settings.model_fields
        hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(beside)}"
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
    for key in Settings.model_fields:
        section = SECTIONS.get(key)
        names += [key] if section is None else [f"{key}.{inner}" for inner in section.model_fields]
    return names


def saved_settings(file: Path) -> dict[str, Any]:
    """A run's own note of its settings; none if it is not there or damaged."""
    try:
        values = yaml_text.read(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, yaml.YAMLError, UnicodeDecodeError):
        return {}
    return values if isinstance(values, dict) else {}
