"""What a user might do instead of DiffNAS, a file per kind."""

from torch import nn

from diffnas.families import Teacher
from diffnas.measure.cost import call_cost


class OutOfReachError(Exception):
    """A rival has no form for that teacher or budget."""


def macs_of(teacher: Teacher, model: nn.Module) -> int:
    """MACs of one call of a model with the teacher's inputs."""
    device = next(model.parameters()).device
    return call_cost(model, kwargs=teacher.family.example_inputs(teacher.denoiser, 1, device)).macs
