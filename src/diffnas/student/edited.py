"""A denoiser with an architecture's changes, to be measured."""

import copy
from typing import Any

from diffnas.architecture import Architecture, Space
from diffnas.student.modeling import apply_edits


def edited(denoiser: Any, architecture: Architecture, space: Space) -> Any:
    """A copy with those modules changed, in eval mode; its new layers have whatever weights."""
    made = copy.deepcopy(denoiser)
    apply_edits(made, architecture.edits(space))
    return made.eval()
