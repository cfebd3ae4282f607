import copy
from functools import cache

import pytest
import torch
from torch.nn import functional as F

from diffnas import retrain as module
from diffnas import training
from diffnas.architecture import Architecture
from diffnas.blocks import capture
from diffnas.checkpoint import load_state
from diffnas.errors import RunError
from diffnas.families import Batch
from diffnas.families.batches import training_batch
from diffnas.forecast.activations import saved_bytes
from diffnas.losses import block_loss, block_target
from diffnas.optimizer import Optimizer
from diffnas.retrain import fresh_weights, losses_of, retrain, split
from diffnas.rng import generator
from diffnas.settings import RetrainSettings
from diffnas.student.stock import as_model
from tests.engine import assert_same, scramble, tiny_data, tiny_supernet
from tests.models import tiny_pixart, tiny_sd3

SETTINGS = RetrainSettings(
    steps=6, batch_size=16, learning_rate=1e-3, ema_decay=0.9, task_weight=1.0, output_weight=0.25
)


@cache
def supernet():
    return tiny_supernet()


def fresh():
    """A student of the smallest subnets above, the teacher's below."""
    net = supernet()
    blocks = {b.name: b.smallest if "down" in b.name else b.teacher for b in net.space.blocks}
    student = net.build(Architecture(blocks))
    scramble(student, 3)
    return student


def some_batch(count=4):
    teacher = supernet().teacher
    images = torch.randn(count, 1, 8, 8).clamp(-1, 1)
    return training_batch(teacher, images, {}, generator(0, "t", 0))


def losses(student, weight=0.5, part=None, **settings):
    teacher = supernet().teacher
    chosen = SETTINGS.model_copy(update=settings)
    part = part or some_batch()
    return losses_of(
        student, teacher.denoiser, teacher.family, part, settings=chosen, weight=weight
    )


def test_the_joint_loss_is_made_of_its_parts():
    found = losses(fresh(), weight=0.25, task_weight=3.0, output_weight=2.0)
    prediction = 3 * found["task"] + 2 * found["output"]
    torch.testing.assert_close(found["loss"], 0.75 * found["blocks"] + 0.25 * prediction)


def test_the_parts_compare_the_prediction_with_the_target_and_with_the_teachers():
    student, part, teacher = fresh(), some_batch(), supernet().teacher.denoiser
    found = losses(student, part=part)
    with torch.no_grad():
        given, taught = student(**part.inputs).sample, teacher(**part.inputs).sample
    torch.testing.assert_close(found["task"].detach(), F.mse_loss(given, part.target))
    torch.testing.assert_close(found["output"].detach(), F.mse_loss(given, taught))


@pytest.mark.parametrize("features", ["student", "teacher"])
@torch.no_grad()
def test_blocks_are_fed_by_the_student_or_by_the_teacher(features):
    student, part, teacher = fresh(), some_batch(), supernet().teacher
    names = teacher.family.block_names(teacher.denoiser)
    _, taught = capture(teacher.denoiser, names, part.inputs)
    _, own = capture(student, names, part.inputs)
    expected = 0.0
    for name in names:
        fed = own[name] if features == "student" else taught[name]
        output = student.get_submodule(name)(*fed.args, **fed.kwargs)
        expected += float(block_loss(output, block_target(taught[name], "residual")))
    found = losses(student, part=part, features=features)
    assert float(found["blocks"]) == pytest.approx(expected, rel=1e-5)


def test_the_teacher_itself_has_no_block_loss():
    found = losses(copy.deepcopy(supernet().teacher.denoiser))
    assert float(found["blocks"]) < 1e-10
    assert float(found["output"]) < 1e-10


def asked_of_the_teacher(monkeypatch, **arguments):
    asked = []

    def watched(denoiser, paths, inputs):
        asked.append(list(paths))
        return capture(denoiser, paths, inputs)

    monkeypatch.setattr(module, "capture", watched)
    losses(fresh(), **arguments)
    return asked


def test_without_a_schedule_no_block_features_are_computed(monkeypatch):
    assert asked_of_the_teacher(monkeypatch, schedule="none", weight=1.0) == [[]]


def test_at_full_beta_no_block_features_are_computed(monkeypatch):
    assert asked_of_the_teacher(monkeypatch, schedule="step", weight=1.0) == [[]]


def test_a_student_that_learns_from_data_alone_needs_no_teacher(monkeypatch):
    arguments = {"schedule": "none", "output_weight": 0.0, "weight": 1.0}
    assert asked_of_the_teacher(monkeypatch, **arguments) == []


def without_middle():
    net = supernet()
    blocks = {b.name: b.smallest if b.name == "mid_block" else b.teacher for b in net.space.blocks}
    architecture = Architecture(blocks)
    weights = net.build(architecture).state_dict()
    return as_model(net.teacher.denoiser.config, architecture.edits(net.space), weights)


@pytest.mark.parametrize("features", ["student", "teacher"])
def test_a_student_that_lost_its_middle_block_is_retrained(features):
    student = without_middle()
    assert student.mid_block is None
    settings = SETTINGS.model_copy(update={"features": features})
    retrain(student, supernet().teacher, tiny_data(), settings)
    assert all(torch.isfinite(value).all() for value in student.state_dict().values())


def test_muon_trains_linear_layers_and_convolutions_alone():
    students = {name: fresh() for name in ("adamw", "muon")}
    for name, student in students.items():
        how = {"optimizer": name, "steps": 1, "schedule": "none"}
        settings = SETTINGS.model_copy(update=how)
        retrain(student, supernet().teacher, tiny_data(), settings)
    plain, muon = (student.state_dict() for student in students.values())
    for name, value in plain.items():
        assert torch.equal(muon[name], value) == (value.ndim == 1), name


def test_the_result_is_the_average_of_the_weights_on_the_way(monkeypatch):
    student, way = fresh(), []
    parameters = list(student.parameters())
    step = Optimizer.step

    def watched(self, rate, where):
        step(self, rate, where)
        way.append([parameter.detach().clone() for parameter in parameters])

    monkeypatch.setattr(Optimizer, "step", watched)
    average = [parameter.detach().clone() for parameter in parameters]
    retrain(student, supernet().teacher, tiny_data(), SETTINGS)
    for number, weights in enumerate(way):
        decay = min(0.9, 1 - (1 + number) ** -0.75) if number else 0.0
        average = [decay * a + (1 - decay) * w for a, w in zip(average, weights, strict=True)]
    assert len(way) == 6
    for given, expected in zip(parameters, average, strict=True):
        torch.testing.assert_close(given.detach(), expected)
        assert not given.requires_grad


def test_retraining_changes_the_student_only():
    student, teacher = fresh(), supernet().teacher
    before = copy.deepcopy(teacher.denoiser.state_dict())
    started = copy.deepcopy(student.state_dict())
    retrain(student, teacher, tiny_data(), SETTINGS)
    assert_same(teacher.denoiser.state_dict(), before)
    assert any(not torch.equal(v, started[k]) for k, v in student.state_dict().items())


def test_gradient_checkpointing_changes_no_weight():
    plain, checkpointed, teacher = fresh(), fresh(), supernet().teacher
    settings = SETTINGS.model_copy(update={"gradient_checkpointing": True})
    retrain(plain, teacher, tiny_data(), SETTINGS)
    retrain(checkpointed, teacher, tiny_data(), settings)
    assert_same(checkpointed.state_dict(), plain.state_dict())
    assert not checkpointed.is_gradient_checkpointing


def test_gradient_checkpointing_keeps_fewer_activations():
    student, teacher = fresh(), supernet().teacher
    inputs = teacher.family.example_inputs(teacher.denoiser, 4, torch.device("cpu"))
    every = saved_bytes(student, (), inputs)
    student.enable_gradient_checkpointing()
    assert saved_bytes(student, (), inputs) < 0.7 * every


@pytest.mark.parametrize("schedule", ["linear", "cosine", "step", "static", "none"])
def test_beta_goes_its_schedules_way(schedule):
    betas = []

    class Watch(training.Progress):
        def update(self, done, **figures):
            betas.append(figures["beta"])

    settings = SETTINGS.model_copy(update={"schedule": schedule, "steps": 3, "batch_size": 4})
    retrain(fresh(), supernet().teacher, tiny_data(), settings, progress=Watch())
    ends = {"static": (0.5, 0.5), "none": (1, 1)}.get(schedule, (0, 1))
    assert (betas[0], betas[-1]) == ends


def test_retraining_brings_the_student_closer_to_the_teacher():
    student, part = fresh(), some_batch(16)
    before = float(losses(student, part=part)["output"].detach())
    how = {"steps": 50, "learning_rate": 3e-3, "output_weight": 4.0}
    settings = SETTINGS.model_copy(update=how)
    retrain(student, supernet().teacher, tiny_data(), settings)
    assert float(losses(student, part=part)["output"]) < 0.8 * before


@pytest.mark.parametrize(
    ("precision", "optimizer"), [("fp32", "adamw"), ("bf16", "adamw"), ("fp32", "muon")]
)
def test_a_resumed_retraining_ends_with_the_weights_of_one_never_stopped(
    tmp_path, monkeypatch, precision, optimizer
):
    teacher, kept = supernet().teacher, {"checkpoint": tmp_path / "c", "precision": precision}
    settings = SETTINGS.model_copy(update={"optimizer": optimizer})
    whole, stopped, resumed = fresh(), fresh(), fresh()
    retrain(whole, teacher, tiny_data(), settings, precision=precision)
    monkeypatch.setattr(training, "SAVE_EVERY", -1.0)

    class Stop(training.Progress):
        def update(self, done, **_):
            if done == 4:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        retrain(stopped, teacher, tiny_data(), settings, progress=Stop(), **kept)
    assert load_state(tmp_path / "c")[1]["step"] == "3"
    retrain(resumed, teacher, tiny_data(), settings, **kept)
    assert_same(resumed.state_dict(), whole.state_dict())


def test_a_finished_retraining_is_not_taken_further(tmp_path):
    student, again = fresh(), fresh()
    retrain(student, supernet().teacher, tiny_data(), SETTINGS, checkpoint=tmp_path / "c")
    retrain(again, supernet().teacher, tiny_data(), SETTINGS, checkpoint=tmp_path / "c")
    assert_same(again.state_dict(), student.state_dict())


def test_a_loss_that_is_not_finite_names_the_step_and_the_remedy():
    student = fresh()

    class Spoil(training.Progress):
        def update(self, done, **_):
            if done == 2:
                student.conv_in.weight.data.fill_(torch.nan)

    with pytest.raises(RunError, match=r"retrain step 2: .*lower retrain.learning_rate"):
        retrain(student, supernet().teacher, tiny_data(), SETTINGS, progress=Spoil())


def test_a_batch_cut_for_threads_gives_nearly_the_gradients_of_the_whole(monkeypatch):
    found = {}
    step = Optimizer.step

    def watched(self, rate, where):
        found.setdefault(workers, [p.grad.clone() for p in self.parameters])
        step(self, rate, where)

    monkeypatch.setattr(Optimizer, "step", watched)
    settings = SETTINGS.model_copy(update={"steps": 1, "schedule": "static"})
    for workers in (1, 2):
        monkeypatch.setattr(module, "workers_for", lambda *_, n=workers: n)
        retrain(fresh(), supernet().teacher, tiny_data(), settings)
    whole = torch.cat([gradient.flatten() for gradient in found[1]])
    parts = torch.cat([gradient.flatten() for gradient in found[2]])
    # The scales of the block losses are those of each part.
    assert F.cosine_similarity(whole, parts, dim=0) > 0.995


def test_without_block_losses_the_gradients_are_those_of_the_whole(monkeypatch):
    results = []
    settings = SETTINGS.model_copy(update={"steps": 1, "schedule": "none"})
    for workers in (1, 2):
        monkeypatch.setattr(module, "workers_for", lambda *_, n=workers: n)
        student = fresh()
        watched = []
        monkeypatch.setattr(
            Optimizer,
            "step",
            lambda self, *_, kept=watched: kept.extend(p.grad for p in self.parameters),
        )
        retrain(student, supernet().teacher, tiny_data(), settings)
        results.append(watched)
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("count", "parts", "sizes"), [(8, 2, [4, 4]), (5, 2, [3, 2]), (2, 4, [1, 1])]
)
def test_a_batch_is_cut_along_its_images(count, parts, sizes):
    shared = torch.ones(3, 7)
    sample = torch.arange(float(count))[:, None]
    whole = Batch(
        {"sample": sample, "timestep": torch.arange(count), "guidance": shared, "x": None}, sample
    )
    found = split(whole, parts)
    assert [len(part.target) for part in found] == sizes
    assert torch.equal(torch.cat([part.inputs["sample"] for part in found]), sample)
    assert torch.equal(torch.cat([part.inputs["timestep"] for part in found]), torch.arange(count))
    assert all(part.inputs["guidance"] is shared and part.inputs["x"] is None for part in found)


@pytest.mark.parametrize("make", [tiny_pixart, tiny_sd3])
def test_fresh_weights_are_those_a_class_begins_with(make):
    model = make().transformer
    kind, config = type(model), model.config
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    fresh_weights(model, 3)
    torch.manual_seed(3)
    assert_same(model.state_dict(), kind.from_config(config).state_dict())
