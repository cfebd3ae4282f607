"""Defaults follow from the model and the data, and say why."""

import pytest

from diffnas.defaults import resolve, resolve_for
from diffnas.errors import UserError
from diffnas.families import Teacher, flux, flux2
from diffnas.settings import RetrainSettings, Settings, parse
from tests.families.kinds import teacher
from tests.models import tiny_flux, tiny_flux2


def resolved(given=None, **facts):
    return resolve(
        parse(given or {}), **{"params": 1_000_000, "size": (32, 32), "images": 5000, **facts}
    )


def test_every_gap_is_filled_and_has_its_reason():
    settings, reasons = resolved()
    # Without snr_gamma nothing is weighted: no gap.
    for values in (
        settings.supernet.model_dump(),
        settings.retrain.model_dump(exclude={"snr_gamma"}),
    ):
        assert None not in values.values()
    assert {"supernet.steps", "retrain.batch_size", "retrain.ema_decay"} <= reasons.keys()


def test_what_was_given_stays_and_needs_no_reason():
    settings, reasons = resolved({"retrain": {"steps": 77, "learning_rate": 0.5}})
    assert (settings.retrain.steps, settings.retrain.learning_rate) == (77, 0.5)
    assert "retrain.steps" not in reasons


def test_larger_models_train_longer_and_slower():
    small, large = resolved()[0].retrain, resolved(params=100_000_000)[0].retrain
    assert large.steps > small.steps
    assert large.learning_rate < small.learning_rate


def test_muon_has_a_rate_of_its_own_and_leaves_the_supernets_as_it_is():
    plain, _ = resolved({})
    muon, _ = resolved({"retrain": {"optimizer": "muon"}})
    assert muon.retrain.learning_rate == 2.5 * plain.retrain.learning_rate
    assert muon.supernet == plain.supernet


def test_batches_shrink_with_large_images_and_never_exceed_the_images():
    assert resolved(size=(256, 256))[0].retrain.batch_size < 64
    assert resolved(images=10)[0].retrain.batch_size == 10


@pytest.mark.parametrize(("make", "family"), [(tiny_flux, flux.FAMILY), (tiny_flux2, flux2.FAMILY)])
def test_latents_that_come_in_squares_count_as_those_that_the_denoiser_packs(make, family):
    made = make(size=128)
    settings, reasons = resolve_for(Teacher("flux", made, made.transformer, family), Settings())
    assert settings.retrain.batch_size == 4
    assert "128 x 128" in reasons["retrain.batch_size"]


def test_scoring_takes_the_supernets_batches_unless_told_otherwise():
    settings, reasons = resolved({"supernet": {"batch_size": 8}})
    assert settings.score.batch_size == 8
    assert "supernet.batch_size" in reasons["score.batch_size"]
    given = {"supernet": {"batch_size": 8}, "score": {"batch_size": 32}}
    assert resolved(given)[0].score.batch_size == 32


def test_conditions_are_left_out_in_training_only_of_models_that_can_be_guided():
    guided, reasons = resolved(guidable=True)
    assert 0 < guided.data.condition_dropout < 1
    assert "guided" in reasons["data.condition_dropout"]
    plain, reasons = resolved()
    assert plain.data.condition_dropout == 0
    assert "data.condition_dropout" not in reasons
    given = {"data": {"condition_dropout": 0.0}}
    assert resolved(given, guidable=True)[0].data.condition_dropout == 0


def test_students_of_distilled_models_follow_their_teacher_alone():
    of_data, reasons = resolved()
    assert of_data.retrain.task_weight == 1
    assert "retrain.task_weight" not in reasons
    alone, reasons = resolved(distilled=True)
    assert alone.retrain.task_weight == 0 < alone.retrain.output_weight
    assert "distilled" in reasons["retrain.task_weight"]


@pytest.mark.parametrize(("task", "output"), [(0.0, 1.0), (0.5, 0.0)])
def test_the_teachers_prediction_counts_whole_where_it_is_all(task, output):
    for distilled in (False, True):
        found = resolved({"retrain": {"task_weight": task}}, distilled=distilled)[0].retrain
        assert (found.task_weight, found.output_weight) == (task, output)


def test_students_of_models_of_texts_follow_their_teacher_too():
    assert resolved()[0].retrain.output_weight == 0
    told, reasons = resolved(texts=True)
    assert (told.retrain.task_weight, told.retrain.output_weight) == (1, 0.25)
    assert "texts" in reasons["retrain.output_weight"]
    assert resolved(texts=True, distilled=True)[0].retrain.task_weight == 0


def test_a_retraining_without_a_goal_is_refused():
    goals = {"task_weight": 0, "output_weight": 0}
    with pytest.raises(UserError, match=r"retrain.task_weight = 0, retrain.output_weight = 0: "):
        resolved({"retrain": goals})


@pytest.mark.parametrize(
    ("kind", "guidance", "goals"),
    [
        ("classes, transformer", None, (0, 1)),
        ("texts", None, (0, 1)),
        ("classes, transformer", 1.0, (1, 0)),
        ("texts", 1.0, (1, 0.25)),
        ("pixels", None, (1, 0)),
    ],
)
def test_samples_that_were_guided_are_no_goal_of_a_student_that_is_guided_too(
    kind, guidance, goals
):
    given = parse({"evaluate": {"guidance": guidance}})
    found, reasons = resolve_for(teacher(kind), given, own_samples=True)
    assert (found.retrain.task_weight, found.retrain.output_weight) == goals
    assert ("twice" in reasons.get("retrain.task_weight", "")) == (goals[0] == 0)
    asked = given.model_copy(update={"retrain": RetrainSettings(task_weight=0.5)})
    assert resolve_for(teacher(kind), asked, own_samples=True)[0].retrain.task_weight == 0.5


def test_max_steps_caps_both_trainings():
    settings, reasons = resolved({"max_steps": 5})
    assert (settings.supernet.steps, settings.retrain.steps) == (5, 5)
    assert "max_steps" in reasons["retrain.steps"]


def test_why_a_student_follows_its_teacher_alone_is_said():
    assert "distilled" in resolved(distilled=True)[1]["retrain.output_weight"]
    asked = resolved({"retrain": {"task_weight": 0.0}})[1]
    assert asked["retrain.output_weight"].endswith("as retrain.task_weight is 0")


@pytest.mark.parametrize(
    ("kind", "goals", "dropout"),
    [
        ("pixels", (1, 0), 0),
        ("texts", (1, 0.25), 0.1),
        ("classes, transformer", (1, 0), 0.1),
        ("texts, few steps", (0, 1), 0),
    ],
)
def test_what_a_teacher_is_told_and_was_made_of_counts(kind, goals, dropout):
    found, _ = resolve_for(teacher(kind), Settings())
    assert (found.retrain.task_weight, found.retrain.output_weight) == goals
    assert found.data.condition_dropout == dropout
