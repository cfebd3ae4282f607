"""What a pipeline needs now and then rests on the CPU."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn

from diffnas.families import Teacher, unet2d_condition
from diffnas.families import teacher as module
from diffnas.families.resting import awake
from tests.models import tiny_stable_diffusion

ELSEWHERE = torch.device("meta")


class Part(nn.Module):
    """A module without values, which notes where it is moved."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.places: list[str] = []

    def to(self, device):
        self.places.append(str(device))
        self.weight = nn.Parameter(torch.zeros(1, device=device))
        return self


def test_a_part_is_on_the_device_while_it_is_used():
    part = Part()
    with awake([part], ELSEWHERE):
        assert part.weight.device == ELSEWHERE
    assert part.places == ["meta", "cpu"]


def test_a_part_that_is_awake_stays_so():
    part = Part()
    with awake([part], ELSEWHERE):
        with awake([part], ELSEWHERE):
            pass
        assert part.places == ["meta"]


def test_a_part_goes_back_after_an_error_too():
    part = Part()
    with pytest.raises(KeyError), awake([part], ELSEWHERE):
        raise KeyError
    assert part.places == ["meta", "cpu"]


def test_on_the_cpu_nothing_moves():
    part = Part()
    with awake([part], torch.device("cpu")):
        pass
    assert part.places == []


@pytest.mark.parametrize(
    ("work", "part"),
    [
        (lambda teacher: teacher.told(["a cat"]), "text_encoder"),
        (lambda teacher: teacher.nothing(), "text_encoder"),
        (lambda teacher: teacher.encode(torch.zeros(1, 3, 16, 16)), "vae"),
        (lambda teacher: teacher.decode(torch.zeros(1, 4, 8, 8)), "vae"),
    ],
)
def test_a_teacher_wakes_what_it_uses(work, part, monkeypatch):
    woken = []

    def note(parts, device):
        woken.extend(parts)
        return nullcontext()

    pipeline = tiny_stable_diffusion()
    teacher = Teacher("tiny", pipeline, pipeline.unet, unet2d_condition.FAMILY)
    monkeypatch.setattr(module, "awake", note)
    work(teacher)
    assert woken == [getattr(pipeline, part)]


def test_decoded_latents_are_the_images_of_the_autoencoder():
    pipeline = tiny_stable_diffusion()
    teacher = Teacher("tiny", pipeline, pipeline.unet, unet2d_condition.FAMILY)
    images = teacher.decode(teacher.encode(torch.zeros(2, 3, 16, 16)))
    latents = pipeline.vae.encode(torch.zeros(2, 3, 16, 16)).latent_dist.mode()
    expected = pipeline.vae.decode(latents).sample
    assert np.allclose(images.numpy(), expected.detach().numpy(), atol=1e-5)
