"""Samples of the teacher in place of images."""

import numpy as np
import pytest
import torch

from diffnas import own_samples as module
from diffnas.cli import main
from diffnas.data import filled
from diffnas.data.split import divide
from diffnas.errors import UserError
from diffnas.own_samples import COUNT, _classes, own_samples
from diffnas.progress import Progress
from diffnas.settings import parse
from tests.engine import tiny_inpainter, tiny_teacher
from tests.painter import level, painter

SETTINGS = {"data": {"limit": 40}, "evaluate": {"sampler_steps": 2}}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(module, "PART", 16)


def made(folder, teacher=None, progress=None, *enough, **data):
    settings = parse({**SETTINGS, "data": {**SETTINGS["data"], **data}})
    return own_samples(teacher or tiny_teacher(), settings, folder, progress, *enough)


def test_they_are_what_the_evaluations_sampler_makes_from_noise_of_its_own(tmp_path):
    teacher = tiny_teacher()
    data = made(tmp_path, teacher)
    assert data.images.shape == (40, 1, 8, 8)
    assert len(data.held_out) == 8
    how = {"sampler": "dpmsolver", "steps": 2, "batch_size": 8}
    for part in (0, 2):
        count = min(16, 40 - 16 * part)
        images = teacher.sample(count, seed=10**9 + part, **how)
        np.testing.assert_array_equal(data.images[16 * part :][:count], images)


def test_too_few_are_refused_before_they_are_drawn(tmp_path):
    def enough(seen, held_out):
        raise UserError(f"{seen} and {held_out} are too few")

    with pytest.raises(UserError, match=r"^32 and 8 are too few"):
        made(tmp_path, None, None, enough)
    assert not list(tmp_path.iterdir())


def test_classes_are_the_samples_own_and_equally_frequent(tmp_path):
    teacher = tiny_teacher(num_class_embeds=3)
    data = made(tmp_path, teacher)
    assert set(np.unique(data.labels)) == {0, 1, 2}
    alone = teacher.sample(
        16,
        seed=10**9,
        sampler="dpmsolver",
        steps=2,
        batch_size=16,
        shows=lambda rows: {"class_labels": torch.from_numpy(data.labels[rows])},
    )
    np.testing.assert_array_equal(data.images[:16], alone)


def prompted(folder, text, **evaluate):
    prompts = folder / "prompts.txt"
    prompts.write_bytes(text)
    judged = {"sampler": "ddim", "sampler_steps": 1, "guidance": 1.0, **evaluate}
    given = {"data": {"limit": 40, "prompts": str(prompts)}, "evaluate": judged}
    return own_samples(painter(), parse(given), folder)


def test_texts_are_the_prompts_in_turn(tmp_path):
    data = prompted(tmp_path, b"0.5\n\n -0.5 \n0.25")
    assert data.captions == ("0.5", "-0.5", "0.25") * 13 + ("0.5",)
    found = data.images[:, 0, 0, 0].tolist()
    assert found == [level(float(caption)) for caption in data.captions]


def test_other_prompts_or_another_guidance_make_others(tmp_path):
    first = np.array(prompted(tmp_path, b"0.5").images)
    assert (prompted(tmp_path, b"0.25").images != first).all()
    assert (prompted(tmp_path, b"0.5", guidance=1.5).images != first).all()
    np.testing.assert_array_equal(prompted(tmp_path, b"0.5").images, first)


def test_a_model_of_texts_needs_prompts(tmp_path):
    with pytest.raises(UserError, match=r"^data\.prompts: not given, and the model takes text"):
        made(tmp_path, painter())


@pytest.mark.parametrize(
    ("text", "words"), [(b"\n \n", "holds no captions; write one a line"), (b"\xff", "not UTF-8")]
)
def test_prompts_that_are_none_are_refused(tmp_path, text, words):
    with pytest.raises(UserError, match=rf"^data\.prompts .*prompts\.txt: {words}"):
        prompted(tmp_path, text)


def test_a_missing_file_of_prompts_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"^data\.prompts .*gone\.txt: No such file"):
        made(tmp_path, painter(), prompts=str(tmp_path / "gone.txt"))


def test_prompts_of_a_model_that_takes_no_text_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"^data\.prompts = p\.txt: the model takes no text"):
        made(tmp_path, prompts="p.txt")


@pytest.mark.parametrize(("given", "taken"), [("auto", "none"), ("flip", "flip")])
def test_they_are_mirrored_only_if_asked_for(tmp_path, given, taken):
    assert made(tmp_path, augment=given).augment == taken


def test_what_was_interrupted_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(filled, "SECONDS", 0.0)
    whole = made(tmp_path / "whole").images

    class Stops(Progress):
        def update(self, done, **figures):
            if done > 16:
                raise KeyboardInterrupt

    class Begins(Progress):
        def start(self, stage, total, done=0):
            self.began = (stage, total, done)

    with pytest.raises(KeyboardInterrupt):
        made(tmp_path / "cut", progress=Stops())
    shown = Begins()
    again = made(tmp_path / "cut", progress=shown)
    assert shown.began == ("draw", 40, 16)
    np.testing.assert_array_equal(again.images, whole)


def test_another_teacher_makes_others(tmp_path):
    first = np.array(made(tmp_path).images)
    assert not np.array_equal(made(tmp_path, tiny_teacher(seed=1)).images, first)


def test_evaluate_asks_for_images(capsys):
    assert main(["evaluate", "digits", "--data", "teacher"]) == 2
    assert capsys.readouterr().err.startswith("diffnas: --data teacher: only 'compress'")


def test_a_model_that_fills_holes_has_no_images_to_fill(tmp_path):
    with pytest.raises(UserError, match=r"^data = teacher: .* fills holes in images"):
        made(tmp_path, tiny_inpainter())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("classes", [None, 2, 10, 74, 176, 1000])
def test_a_fifth_of_them_is_enough_for_inception_features(classes):
    teacher = tiny_teacher(num_class_embeds=classes)
    _, held_out = divide(COUNT, _classes(teacher, COUNT), None, by="file", held_out=0.2)
    assert len(held_out) > 2048
