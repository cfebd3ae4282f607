"""An upsampler: enlarged and convolved in one, of lower rank, or 1x1 before it is enlarged."""

from collections.abc import Iterator

from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn

from diffnas.architecture import TEACHER, Edit
from diffnas.settings import SpaceSettings
from diffnas.slots import conv

KIND = "upsampler"

FOLDED = "folded"
"""The option that gives what the teacher's gives, for less."""


def matches(module: nn.Module) -> bool:
    """Whether this slot understands the module."""
    if not (
        type(module) is Upsample2D
        and module.interpolate
        and module.norm is None
        and not module.use_conv_transpose
    ):
        return False
    inner = getattr(module, "conv", None)
    return (
        conv.matches(inner)
        and inner.kernel_size == (3, 3)
        and inner.padding == (1, 1)
        and inner.stride == (1, 1)
    )


def edits(upsampler: Upsample2D, settings: SpaceSettings) -> Iterator[tuple[str, Edit | None]]:
    """Options by name, as of its convolution, and one that gives what the teacher's gives."""
    assert isinstance(upsampler.conv, nn.Conv2d)
    for name, edit in conv.edits(upsampler.conv, settings):
        if edit is not None:
            yield name, {**edit, "kind": KIND}
            continue
        yield TEACHER, None
        if settings.preset == "full":
            yield FOLDED, {"kind": KIND}


class SharedWeights(nn.Module):
    """Those of its convolution; folded or not, the teacher's serve both."""

    def __init__(self, upsampler: Upsample2D, options: list[Edit | None]) -> None:
        super().__init__()
        assert isinstance(upsampler.conv, nn.Conv2d)
        self.conv = conv.SharedWeights(upsampler.conv, options)

    def weights(self, edit: Edit | None) -> dict[str, Tensor]:
        """Views into the shared weights, named as in the option's plain module."""
        whole = edit is None or edit.keys() == {"kind"}
        weights = self.conv.weights(None if whole else edit)
        return {f"conv.{name}": value for name, value in weights.items()}
