from types import SimpleNamespace

import pytest
import torch

from diffnas import training
from diffnas.checkpoint import load_state, save_state
from diffnas.errors import RunError
from diffnas.progress import Progress
from diffnas.rng import generator
from diffnas.training import Loop, Pace, train


def counting(steps=5, **arguments):
    """A loop over one number, to which each step adds its index; and the steps taken."""
    value, taken = torch.zeros(()), []

    def step(index):
        taken.append(index)
        value.add_(index)
        return {"loss": float(index), "note": "x"}

    def restore(tensors):
        value.copy_(tensors["value"])

    adding = SimpleNamespace(
        pace=Pace(steps, 1, 0.0),
        workers=1,
        step=step,
        state=lambda: {"value": value},
        restore=restore,
    )
    return Loop("test", adding, **arguments), value, taken


def test_all_steps_are_taken_in_order():
    loop, value, taken = counting()
    train(loop)
    assert taken == [0, 1, 2, 3, 4]
    assert value == 10


def test_the_end_is_saved(tmp_path):
    train(counting(checkpoint=tmp_path / "c", fingerprint="f")[0])
    tensors, meta = load_state(tmp_path / "c")
    assert tensors["value"] == 10
    assert (meta["step"], meta["fingerprint"]) == ("5", "f")


def test_steps_already_taken_are_not_taken_again(tmp_path):
    train(counting(3, checkpoint=tmp_path / "c")[0])
    loop, value, taken = counting(5, checkpoint=tmp_path / "c")
    train(loop)
    assert taken == [3, 4]
    assert value == 10


def test_seconds_before_a_resume_count(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(training.time, "monotonic", lambda: now[0])

    class Clock(Progress):
        def update(self, done, **_):
            now[0] += 2

    assert train(counting(3, checkpoint=tmp_path / "c", progress=Clock())[0]) == 6
    assert train(counting(5, checkpoint=tmp_path / "c", progress=Clock())[0]) == 10


def test_a_damaged_checkpoint_is_said_and_starts_over(tmp_path):
    (tmp_path / "c").write_bytes(b"no tensors")
    said = []

    class Watch(Progress):
        def say(self, line):
            said.append(line)

    loop, _, taken = counting(2, checkpoint=tmp_path / "c", progress=Watch())
    train(loop)
    assert taken == [0, 1]
    assert said == [f"{tmp_path / 'c'}: damaged; test begins again"]


def test_a_checkpoint_of_another_format_starts_over(tmp_path):
    meta = {"format": "1", "fingerprint": "f", "step": "4", "seconds": "1"}
    save_state(tmp_path / "c", {"value": torch.ones(())}, meta)
    loop, _, taken = counting(checkpoint=tmp_path / "c", fingerprint="f")
    train(loop)
    assert taken == [0, 1, 2, 3, 4]


def test_another_fingerprint_starts_over(tmp_path):
    train(counting(3, checkpoint=tmp_path / "c", fingerprint="one")[0])
    loop, _, taken = counting(5, checkpoint=tmp_path / "c", fingerprint="other")
    train(loop)
    assert taken == [0, 1, 2, 3, 4]


def test_checkpoints_are_written_by_the_clock(tmp_path, monkeypatch):
    now, saves = [0.0], []
    monkeypatch.setattr(training.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(training, "_save", lambda _, done, seconds: saves.append(done))

    class Clock(Progress):
        def update(self, done, **_):
            now[0] += 25

    train(counting(7, progress=Clock())[0])
    assert saves == [3, 6, 7]  # every 75 seconds, and the end


def test_checkpoints_that_take_long_are_rare(monkeypatch):
    now, saves = [0.0], []
    monkeypatch.setattr(training.time, "monotonic", lambda: now[0])

    def save(_, done, seconds):
        saves.append((done, seconds))
        now[0] += 90

    monkeypatch.setattr(training, "_save", save)

    class Clock(Progress):
        def update(self, done, **_):
            now[0] += 100

    train(counting(12, progress=Clock())[0])
    assert saves == [(1, 100), (11, 1190), (12, 1380)]  # 900 seconds and more after the first one


def test_progress_hears_of_every_step_and_of_the_end_even_after_an_error():
    heard = []

    class Watch(Progress):
        def start(self, stage, total, done=0):
            heard.append((stage, total, done))

        def update(self, done, **figures):
            heard.append((done, figures))
            if done == 2:
                raise RunError("enough")

        def stop(self):
            heard.append("stopped")

    with pytest.raises(RunError, match="enough"):
        train(counting(progress=Watch())[0])
    assert heard == [("test", 5, 0), (1, {"loss": 0.0}), (2, {"loss": 1.0}), "stopped"]


def test_the_log_has_every_figure_now_and_then_and_at_the_end():
    logged = []

    class Watch(Progress):
        def log(self, **record):
            logged.append(record)

    train(counting(5, progress=Watch(), points=2)[0])
    assert [record["step"] for record in logged[1:]] == [2, 4, 5]
    assert logged[-1] == {"stage": "test", "step": 5, "loss": 4.0, "note": "x"}


def test_the_log_says_after_which_step_a_training_begins(tmp_path):
    logged = []

    class Watch(Progress):
        def log(self, **record):
            logged.append(record)

    for steps in (3, 5):
        about = {"student": "small"}
        train(counting(steps, checkpoint=tmp_path / "c", progress=Watch(), about=about)[0])
    begun = [record for record in logged if "after" in record]
    assert begun == [{"stage": "test", "student": "small", "after": n} for n in (0, 3)]


def test_the_rate_warms_up_and_falls_to_zero():
    rates = [Pace(100, 1, 2.0).learning_rate(step) for step in range(100)]
    assert rates[:5] == pytest.approx([0.4, 0.8, 1.2, 1.6, 2.0])
    assert max(rates) == 2.0
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert rates[-1] < 0.001
    assert Pace(10_000, 1, 2.0).learning_rate(99) == 2.0  # the warm-up ends after 100 steps
    assert Pace(1, 1, 2.0).learning_rate(0) == 2.0


def drawn(seed, stage, step):
    return tuple(torch.randn(4, generator=generator(seed, stage, step)).tolist())


def test_random_numbers_follow_from_seed_stage_and_step():
    assert drawn(0, "supernet", 3) == drawn(0, "supernet", 3)


def test_no_two_seeds_stages_or_steps_draw_alike():
    stages = ("supernet", "retrain", "sample", "score images", "score noise")
    keys = [(seed, stage, step) for seed in (0, 1, 2**30) for stage in stages for step in range(40)]
    keys += [(0, "supernet", 2**16), (0, "supernet", 2**16 + 1)]
    assert len({drawn(*key) for key in keys}) == len(keys)
