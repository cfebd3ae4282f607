"""All stages on an emulated GPU: nothing mixes devices, and what rests is not on it."""

import gc
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from diffnas.architecture import Architecture
from diffnas.effects import output_errors
from diffnas.families import Teacher
from diffnas.families.teaching import teaching
from diffnas.retrain import retrain
from diffnas.scoring import score
from diffnas.settings import RetrainSettings, ScoreSettings, SpaceSettings, SupernetSettings
from diffnas.space import make_space
from diffnas.student.stock import as_model, stock_class
from diffnas.supernet import Supernet
from diffnas.supernet_training import fit
from diffnas.trunk import kept_channels, make_trunk
from tests.emulated_gpu import GPU, emulated_gpu, held, on_gpu
from tests.families.kinds import data_of, teacher

TRAINING = SupernetSettings(steps=2, batch_size=4, learning_rate=1e-3, groups=2)
SCORING = ScoreSettings(images=8, batch_size=4, candidates=3, output_images=8)
RETRAINING = RetrainSettings(
    steps=2, batch_size=4, learning_rate=1e-3, ema_decay=0.5, task_weight=1.0, output_weight=1.0
)


@pytest.fixture(autouse=True)
def gpu() -> Iterator[None]:
    """What is not used any more is to leave it at once, not when Python next looks for cycles."""
    gc.collect()
    gc.disable()
    with emulated_gpu():
        yield
    gc.enable()


def supernet(model: Teacher, trunk: float) -> Supernet:
    settings = SpaceSettings(max_subnets=12, trunk=trunk)
    space = make_space(model.denoiser, model.family, settings)
    if space.trunk is None:
        return Supernet(model, space)
    kept = kept_channels(model, data_of(model), space.trunk[0], batch_size=4, seed=0)
    return Supernet(model, space, make_trunk(model, kept))


@pytest.mark.parametrize(
    ("kind", "trunk"),
    [("pixels", 0.5), ("texts", 1.0), ("texts, transformer of two streams", 1.0)],
)
def test_a_compression_leaves_nothing_there_but_the_teacher_and_the_student(
    kind: str, trunk: float, tmp_path: Any
) -> None:
    model = teacher(kind)
    data = data_of(model)
    model.denoiser.to(GPU)
    alone = held()
    net = supernet(model, trunk)
    kept = held()  # which channels stay, of a narrower trunk
    assert kept - alone < alone / 100
    with teaching(model, "bf16"):
        fit(net, data, TRAINING, checkpoint=tmp_path / "trained", fingerprint="same")
        longer = TRAINING.model_copy(update={"steps": 3})
        fit(net, data, longer, checkpoint=tmp_path / "trained", fingerprint="same")
    assert held() == kept
    table = score(net, data, SCORING)
    searched = SCORING.model_copy(update={"enumerate": 1, "evaluations": 20})
    score(net, data, searched)
    output_errors(net, data, table, SCORING)
    assert held() == kept
    smallest = Architecture({block.name: block.smallest for block in net.space.blocks})
    student = as_model(
        model.denoiser.config,
        smallest.edits(net.space),
        net.build(smallest).state_dict(),
        stock_class(model.denoiser),
        edited=True,
    )
    assert all(map(on_gpu, [*student.parameters(), *student.buffers()]))
    with teaching(model, "bf16"):
        retrain(student, model, data, RETRAINING, trunk=net.trunk)
    size = sum(each.nbytes for each in [*student.parameters(), *student.buffers()])
    assert held() <= kept + size


def test_the_emulation_refuses_what_a_gpu_would() -> None:
    there, here = torch.ones(2, device=GPU), torch.ones(2)
    assert (there.device, here.device) == (GPU, torch.device("cpu"))
    assert on_gpu(there + there)
    with pytest.raises(AssertionError, match="mixes"):
        there + here
    with pytest.raises(AssertionError, match="numpy"):
        there.numpy()
    assert not on_gpu(there.cpu())


def test_the_emulation_forgets_what_is_gone() -> None:
    before = held()
    there = torch.ones(1000, device=GPU)
    assert held() == before + 4000
    del there
    assert held() == before
