"""What a user might do instead of DiffNAS, a file per kind."""

from typing import NamedTuple

from torch import nn

from diffnas.families import Teacher
from diffnas.measure.cost import call_cost
from diffnas.slots import upsampler
from diffnas.student.modeling import apply_edits
from diffnas.trunk import Trunk


class Start(NamedTuple):
    """A rival before its retraining."""

    model: nn.Module
    trunk: Trunk | None = None
    """What cuts the teacher's blocks to the model's, where these give fewer channels."""


class OutOfReachError(Exception):
    """A rival has no form for that teacher or budget."""


def macs_of(teacher: Teacher, model: nn.Module) -> int:
    """MACs of one call of a model with the teacher's inputs."""
    device = next(model.parameters()).device
    return call_cost(model, kwargs=teacher.family.example_inputs(teacher.denoiser, 1, device)).macs


def folded(model: nn.Module) -> nn.Module:
    """The same function with its upsamplers folded, in place.

    What DiffNAS saves by that costs no quality, so it is no merit of its search.
    """
    layers = [(path, each) for path, each in model.named_modules() if upsampler.matches(each)]
    edit = {"kind": upsampler.KIND}
    apply_edits(model, {path: edit for path, _ in layers})
    for path, layer in layers:
        weights = upsampler.SharedWeights(layer, [None, edit]).weights(edit)
        model.get_submodule(path).load_state_dict(weights)
    return model
