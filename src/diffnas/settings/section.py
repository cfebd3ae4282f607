"""What a group of settings is, and the kinds of numbers that several have."""

from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

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
    def _no_words(cls, value: Any, info: ValidationInfo) -> Any:
        """The guide's words for a default are no values: a column could be called so."""
        kind = cls.model_fields[str(info.field_name)].annotation
        word = isinstance(value, str) and value.lower() in ("auto", "none")
        if word and type(None) in get_args(kind):
            raise ValueError("is no value; leave it out, or give null")
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _no_truths(cls, value: Any, info: ValidationInfo) -> Any:
        """``yes`` is true in YAML, and true is 1 in Python: no number was meant."""
        kind = cls.model_fields[str(info.field_name)].annotation
        given = value if isinstance(value, list | tuple) else [value]
        if any(isinstance(each, bool) for each in given) and bool not in (kind, *get_args(kind)):
            raise ValueError("must be no true or false")
        return value
