"""What can be set of the search space."""

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from diffnas.settings.section import Positive, Ratio, Section

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
