"""What can be set of each stage, and all of it together."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from diffnas.settings.section import Positive, PositiveFloat, Ratio, Section
from diffnas.settings.space import SpaceSettings

Precision = Literal["fp32", "bf16", "fp16"]
TeacherPrecision = Literal["fp32", "bf16"]


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

BY_COSTS = ("random",)
"""Rules that go by costs alone: no subnet is tried at the output for them."""


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

    @property
    def scored(self) -> ScoreSettings:
        """How subnets are scored for the rule that selects (:data:`BY_COSTS`)."""
        if self.select.rule not in BY_COSTS:
            return self.score
        return self.score.model_copy(update={"by": "block"})
