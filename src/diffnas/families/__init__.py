"""The kinds of teacher, a file each."""

from diffnas.families.family import Batch, Family, Ports
from diffnas.families.teacher import Teacher

__all__ = ["Batch", "Family", "Ports", "Teacher"]
