"""All that can be set, one model per stage, validated once, at the door.

Defaults that depend on the model or the data are ``None`` here and are resolved, with their
reason, in :mod:`diffnas.defaults`.
"""

from diffnas.settings.reading import known_names, load, parse, saved_settings
from diffnas.settings.section import Section
from diffnas.settings.sections import (
    BY_COSTS,
    DEFAULT_RULE,
    DataSettings,
    EvaluateSettings,
    Precision,
    RetrainSettings,
    ScoreSettings,
    SelectSettings,
    Settings,
    SupernetSettings,
    TeacherPrecision,
)
from diffnas.settings.space import UNREAD, SpaceSettings

__all__ = [
    "BY_COSTS",
    "DEFAULT_RULE",
    "UNREAD",
    "DataSettings",
    "EvaluateSettings",
    "Precision",
    "RetrainSettings",
    "ScoreSettings",
    "Section",
    "SelectSettings",
    "Settings",
    "SpaceSettings",
    "SupernetSettings",
    "TeacherPrecision",
    "known_names",
    "load",
    "parse",
    "saved_settings",
]
