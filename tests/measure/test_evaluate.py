from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, EulerAncestralDiscreteScheduler

from diffnas.data import Data
from diffnas.errors import UserError
from diffnas.families import Teacher
from diffnas.families.conditions import CLASSES, Shows
from diffnas.families.loading import load_teacher
from diffnas.measure.evaluate import cost_rows, draw, evaluate, quality_row
from diffnas.measure.protocol import check, judged_by, protocol, told
from diffnas.measure.quality import extract, nearest_distance, quality
from diffnas.measure.references import (
    NEAREST_SIDE,
    PART,
    check_samples,
    check_sides,
    references,
    shrink,
    spread,
)
from diffnas.progress import Progress
from diffnas.report.table import LABELS
from diffnas.settings import EvaluateSettings
from tests.engine import teacher_of
from tests.models import tiny_pipeline
from tests.painter import level, painter

# diffusers' schedulers turn tensors into arrays in ways that numpy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")

FAST = EvaluateSettings(samples=80, sampler_steps=4, batch_size=40)


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return load_teacher("digits")


@pytest.fixture(scope="module")
def row(teacher: Teacher, data: Data) -> dict[str, Any]:
    return quality_row(teacher, data, FAST)


def tiny(**overrides: Any) -> Teacher:
    """A teacher that has learnt nothing."""
    return teacher_of(tiny_pipeline(**overrides))


def part(data: Data, held_out: int, seen: int) -> Data:
    return replace(data, held_out=data.held_out[:held_out], seen=data.seen[:seen])


def test_rows_and_protocol_are_those_of_the_closing_table(teacher: Teacher, data: Data) -> None:
    found = evaluate({"one": teacher, "other": tiny()}, data, FAST)
    assert list(found["rows"]) == ["one", "other"]
    assert all(set(row) == set(LABELS) for row in found["rows"].values())
    assert found["protocol"] == protocol(data, FAST, "cpu")


def test_a_trained_model_is_better_than_an_untrained_one(row: dict[str, Any], data: Data) -> None:
    untrained = quality_row(tiny(), data, FAST)
    for key in ("frechet_distance", "kernel_distance", "frechet_distance_seen"):
        assert row[key]["mean"] < untrained[key]["mean"] / 2
    assert row["denoising_loss"] < untrained["denoising_loss"] / 2
    assert 0 < row["nearest_seen"] < untrained["nearest_seen"] < 1


def test_the_same_call_gives_the_same_row(
    row: dict[str, Any], teacher: Teacher, data: Data
) -> None:
    assert quality_row(teacher, data, FAST) == row


def test_seeds_measured_before_an_interrupt_are_not_sampled_again(
    data: Data, tmp_path: Path
) -> None:
    pipeline, several = tiny(), FAST.model_copy(update={"seeds": [0, 1]})
    whole, began = quality_row(pipeline, data, several), []

    class Stopping(Progress):
        def start(self, stage: str, total: int, done: int = 0) -> None:
            began.append(stage)
            if len(began) == 2:
                raise KeyboardInterrupt

    again = partial(
        quality_row, pipeline, data, several, Stopping(), checkpoint=tmp_path / "c", fingerprint="f"
    )
    with pytest.raises(KeyboardInterrupt):
        again()
    assert again() == whole
    assert len(began) == 3


def test_one_seed_has_no_spread_and_several_have(
    row: dict[str, Any], teacher: Teacher, data: Data
) -> None:
    assert set(row["frechet_distance"]) == {"mean"}
    single = [
        quality_row(teacher, data, FAST.model_copy(update={"seeds": (seed,)})) for seed in (0, 1)
    ]
    both = quality_row(teacher, data, FAST.model_copy(update={"seeds": (0, 1)}))
    values = [one["frechet_distance"]["mean"] for one in single]
    found = both["frechet_distance"]
    assert found["each"] == pytest.approx(values)
    assert found["mean"] == pytest.approx(np.mean(values))
    assert found["std"] == pytest.approx(np.std(values, ddof=1))
    assert both["nearest_seen"] == pytest.approx(np.mean([one["nearest_seen"] for one in single]))


def test_distances_are_to_held_out_images_and_to_seen_ones(
    row: dict[str, Any], teacher: Teacher, data: Data
) -> None:
    images = teacher.sample(
        FAST.samples,
        seed=0,
        sampler=FAST.sampler,
        steps=FAST.sampler_steps,
        batch_size=FAST.batch_size,
    )
    for suffix, picks in (("", data.held_out), ("_seen", data.seen)):
        for key, value in quality(images, data.images[picks], "digits").items():
            assert row[key + suffix] == {"mean": value}
    assert row["nearest_seen"] == nearest_distance(images, data.images[data.seen])


def test_progress_counts_the_samples_of_each_seed(teacher: Teacher, data: Data) -> None:
    class Heard(Progress):
        def __init__(self) -> None:
            self.lines: list[tuple[Any, ...]] = []

        def start(self, stage: str, total: int, done: int = 0) -> None:
            self.lines.append((stage, total, done))

        def update(self, done: int, **figures: float) -> None:
            self.lines.append((done,))

        def stop(self) -> None:
            self.lines.append(("stop",))

    quality_row(teacher, data, FAST, heard := Heard())
    assert heard.lines == [("sample", 80, 0), (40,), (80,), ("stop",)]


def test_classes_reach_a_conditional_model(data: Data) -> None:
    conditional = tiny(num_class_embeds=10)
    assert quality_row(conditional, data, FAST)["denoising_loss"] > 0
    with pytest.raises(UserError, match="no classes"):
        quality_row(conditional, replace(data, labels=None), FAST)


def test_samples_are_of_the_classes_of_held_out_images(
    data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[np.ndarray] = []

    def sample(_: Teacher, count: int, *, shows: Shows, **__: Any) -> None:
        asked.append(shows(np.arange(count))[CLASSES].numpy())

    def classes(data: Data, count: int = 400, seed: int = 0) -> np.ndarray:
        draw(tiny(num_class_embeds=10), data, FAST, count, seed=seed)
        return asked[-1]

    monkeypatch.setattr(Teacher, "sample", sample)

    # Three held-out images of class 7 for one of class 2; the seen ones are of all classes.
    of = {number: np.flatnonzero(data.labels == number) for number in (2, 7)}
    uneven = replace(data, held_out=np.concatenate([of[2][:10], of[7][:30]]))
    found = classes(uneven)
    assert set(found) == {2, 7}
    assert (found == 7).mean() == pytest.approx(0.75, abs=0.07)
    assert np.array_equal(classes(uneven), found)
    assert np.array_equal(classes(uneven, 32), found[:32])
    assert not np.array_equal(classes(uneven, seed=1), found)
    with pytest.raises(UserError, match="no classes"):
        classes(replace(data, labels=None))


def test_quality_is_that_of_the_drawn_samples(data: Data) -> None:
    pipeline = tiny(num_class_embeds=10)
    found = quality_row(pipeline, data, FAST)["frechet_distance"]["mean"]
    images = draw(pipeline, data, FAST, FAST.samples, seed=0)
    held_out = data.images[data.held_out]
    assert found == quality(images, held_out, "digits")["frechet_distance"]


def test_protocol_and_fingerprints_name_the_classes_of_models_that_take_some(data: Data) -> None:
    plain, conditional = tiny(), tiny(num_class_embeds=10)
    found = [evaluate({"row": row}, data, FAST)["protocol"] for row in (plain, conditional)]
    assert found[1] == {**found[0], "classes": "as in the held-out images"}
    assert judged_by(plain, FAST) == FAST.model_dump(exclude={"batch_size", "guidance"})
    assert judged_by(conditional, FAST) != judged_by(plain, FAST)


def test_samples_show_the_captions_of_held_out_images(data: Data) -> None:
    values = np.full(len(data.images), -0.5)
    values[data.held_out] = np.linspace(0, 0.8, len(data.held_out))
    captioned = replace(data, captions=tuple(str(value) for value in values))
    how = FAST.model_copy(update={"guidance": 1.0, "sampler": "ddim", "sampler_steps": 1})
    drawn = draw(painter(), captioned, how, 50, seed=0)[:, 0, 0, 0]
    assert drawn.min() >= level(0)
    assert len(set(drawn)) > 10
    assert np.array_equal(draw(painter(), captioned, how, 20, seed=0)[:, 0, 0, 0], drawn[:20])


def test_samples_of_texts_need_captions(data: Data) -> None:
    with pytest.raises(UserError, match=r"^data: no captions"):
        check(painter(), data, FAST)


def test_protocol_and_fingerprints_name_the_guidance_there_is(data: Data) -> None:
    plain, other = (FAST.model_copy(update={"guidance": guidance}) for guidance in (1.0, 2.0))
    assert told(painter(), FAST) == {"captions": "as in the held-out images", "guidance": 5.0}
    assert told(painter(), plain) == {"captions": "as in the held-out images"}
    assert protocol(data, other, "cpu", told(painter(), other))["guidance"] == 2.0
    named = [judged_by(painter(), settings) for settings in (FAST, plain, other)]
    assert named[0] != named[1] != named[2] != named[0]


def test_no_guidance_is_named_of_a_model_that_is_not_guided() -> None:
    plain = FAST.model_copy(update={"guidance": 1.0})
    assert judged_by(tiny(), plain) == judged_by(tiny(), FAST)
    assert told(tiny(), plain) == {}


def test_guidance_of_a_model_that_cannot_be_guided_is_refused(data: Data) -> None:
    guided = FAST.model_copy(update={"guidance": 2.0})
    with pytest.raises(UserError, match=r"evaluate\.guidance = 2"):
        check(tiny(), data, guided)


@pytest.mark.parametrize(("count", "batch"), [(3, 3), (80, 40)])
def test_no_more_images_are_drawn_at_once_than_the_evaluation_batch(
    data: Data, count: int, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def sample(*_: Any, batch_size: int, **__: Any) -> None:
        asked.append(batch_size)

    monkeypatch.setattr(Teacher, "sample", sample)
    draw(tiny(), data, FAST, count, seed=0)
    assert asked == [batch]


def test_costs_are_those_of_one_call_at_batch_1(teacher: Teacher) -> None:
    rows = cost_rows({"large": teacher, "small": tiny()})
    large, small = rows["large"], rows["small"]
    assert large["params"] == sum(p.numel() for p in teacher.denoiser.parameters())
    assert all(0 < small[key] < large[key] for key in large)
    assert large["macs_without_attention"] < large["macs"]
    assert large["memory_bytes"] > 4 * large["params"]


def test_the_protocol_says_what_was_done(data: Data) -> None:
    found = protocol(data, FAST.model_copy(update={"seeds": (3, 4)}), torch.device("cpu"))
    assert found["real_frechet_distance"] > 0
    del found["real_frechet_distance"]
    assert found == {
        "sampler": "dpmsolver",
        "steps": 4,
        "samples": 80,
        "seeds": [3, 4],
        "features": "64 features of a digits classifier",
        "reference": "digits",
        "held_out_images": len(data.held_out),
        "seen_images": len(data.seen),
        "device": "cpu",
        "torch": torch.__version__,
    }


def test_real_images_are_compared_in_equal_numbers(data: Data) -> None:
    few, many = (
        protocol(part(data, 100, seen), FAST, "cpu")["real_frechet_distance"] for seen in (100, 400)
    )
    equal = replace(data, held_out=data.held_out[:100], seen=spread(data.seen[:400], 100))
    assert many == protocol(equal, FAST, "cpu")["real_frechet_distance"] != few


@pytest.mark.parametrize(
    ("held_out", "seen", "samples", "words"),
    [
        (64, 200, 80, "data.held_out holds out 64 of the 264 images .*; raise it to 0.25$"),
        (200, 64, 80, "data.held_out leaves 64 of the 264 images .*; lower it to 0.75$"),
        (20, 80, 80, "holds out 20 of the 100 images of digits: .*; give 325 images or more$"),
        (200, 200, 64, "evaluate.samples = 64: too few"),
    ],
)
def test_too_few_images_are_refused_before_sampling(
    held_out: int, seen: int, samples: int, words: str, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("sampled")

    monkeypatch.setattr(Teacher, "sample", never)
    pipeline = tiny()
    settings = FAST.model_copy(update={"samples": samples})
    few = part(data, held_out, seen)
    for call in (
        lambda: quality_row(pipeline, few, settings),
        lambda: protocol(few, settings, "cpu"),
        lambda: evaluate({"tiny": pipeline}, few, settings),
    ):
        with pytest.raises(UserError, match=words) as caught:
            call()
        assert "which need 65" in str(caught.value)


def test_no_images_are_too_few() -> None:
    with pytest.raises(UserError, match=r"holds out 0 of the 0 images of none: too few"):
        check_sides("none", FAST.model_copy(update={"features": "patches"}), 0, 0)


def test_features_of_digits_are_not_for_images_in_colour() -> None:
    settings = FAST.model_copy(update={"features": "digits"})
    check_samples("others", (1, 28, 28), settings)
    check_samples("digits", (3, 16, 16), settings)  # which are digits all the same
    with pytest.raises(UserError, match=r"^evaluate\.features = digits: .* use patches"):
        check_samples("photos", (3, 8, 8), settings)


def test_a_share_that_is_held_out_already_is_no_remedy() -> None:
    settings = FAST.model_copy(update={"features": "patches"})
    for source, words in (("photos", "give 496 images or more$"), ("teacher", "data.limit=496")):
        with pytest.raises(UserError, match=words):
            check_sides(source, settings, 490 - 97, 97)


@pytest.mark.parametrize("sampler", ["own", "ddim"])
def test_a_sampler_that_does_not_fit_is_refused_before_sampling(sampler: str, data: Data) -> None:
    settings = FAST.model_copy(update={"sampler": sampler, "sampler_steps": 21})
    with pytest.raises(UserError, match=r"evaluate\.sampler"):
        check(tiny(scheduler=DDPMScheduler(num_train_timesteps=20)), data, settings)


def test_a_sampler_that_cannot_take_the_prediction_is_refused_before_sampling(data: Data) -> None:
    scheduler = EulerAncestralDiscreteScheduler(prediction_type="sample")
    settings = FAST.model_copy(update={"sampler": "own"})
    with pytest.raises(UserError, match=r"evaluate\.sampler = own"):
        check(tiny(scheduler=scheduler), data, settings)


def test_images_of_another_shape_are_refused(data: Data) -> None:
    with pytest.raises(UserError, match=r"\(3, 16, 16\).*\(1, 8, 8\)"):
        quality_row(tiny(sample_size=16, in_channels=3, out_channels=3), data, FAST)


def test_references_are_thinned_evenly(monkeypatch: pytest.MonkeyPatch, data: Data) -> None:
    monkeypatch.setattr("diffnas.measure.references.REFERENCES", 5)
    held_out, seen = references(data)
    assert len(held_out) == len(seen) == 5
    assert np.array_equal(held_out[0], data.images[data.held_out[0]])
    assert np.array_equal(held_out[-1], data.images[data.held_out[-1]])


def test_references_are_read_a_part_at_a_time(data: Data) -> None:
    read: list[int] = []

    class Watched(np.ndarray[Any, Any]):
        def __getitem__(self, key: Any) -> Any:
            read.append(np.size(key))
            return np.asarray(self)[key]

    watched = replace(data, images=data.images.view(Watched))
    held_out, seen = references(watched)
    assert not read
    for images in (held_out, seen):
        wanted = np.concatenate([images[start : start + 50] for start in range(0, len(images), 50)])
        assert torch.equal(extract(images, "digits"), extract(wanted, "digits"))
    assert max(read) <= PART < len(held_out)


def test_large_images_are_shrunk_by_averaging_to_look_for_the_nearest() -> None:
    images = np.zeros((3, 1, 2 * NEAREST_SIDE, 2 * NEAREST_SIDE), np.uint8)
    images[..., ::2] = 100
    assert shrink(images).shape == (3, 1, NEAREST_SIDE, NEAREST_SIDE)
    assert np.unique(shrink(images)) == [50]
    assert shrink(images[..., :8, :8]).shape == (3, 1, 8, 8)
