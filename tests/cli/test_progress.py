"""Progress on stderr: bars on a terminal, lines elsewhere."""

import io

import pytest
from rich.console import Console

from diffnas.cli import progress as shown
from diffnas.cli.progress import PlainProgress, RichProgress, figures_text, rate_text


class Clock:
    """A clock that only goes when told."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(shown, "time", clock)
    return clock


def plain() -> tuple[PlainProgress, io.StringIO]:
    stream = io.StringIO()
    return PlainProgress(Console(file=stream, width=40, soft_wrap=True)), stream


def walk(progress, clock: Clock, steps: int, seconds: float) -> None:
    """Take the steps, so many seconds apart."""
    for done in range(1, steps + 1):
        clock.now += seconds
        progress.update(done, loss=1 / done)


def test_a_line_has_count_rate_time_left_and_loss(clock):
    progress, stream = plain()
    progress.start("supernet", 40)
    walk(progress, clock, 20, 0.5)
    assert stream.getvalue().splitlines()[-1] == "supernet 20/40  2/s  10 s left  loss 0.05"


def test_a_figure_that_has_gone_is_not_shown_any_more(clock):
    progress, stream = plain()
    progress.start("retrain", 2)
    for done, figures in ((1, {"loss": 2.0, "blocks": 1.0}), (2, {"loss": 1.0})):
        clock.now += 20.0
        progress.update(done, **figures)
    first, last = stream.getvalue().splitlines()[-2:]
    assert first.endswith("loss 2  blocks 1")
    assert last.endswith("loss 1")


def test_a_short_stage_speaks_at_each_tenth(clock):
    progress, stream = plain()
    progress.start("supernet", 100)
    walk(progress, clock, 100, 0.0625)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "supernet of 100"
    assert [line.split()[1] for line in lines[1:]] == [f"{10 * i}/100" for i in range(1, 11)]


def test_a_slow_stage_speaks_every_ten_seconds_at_first(clock):
    progress, stream = plain()
    progress.start("retrain", 10_000)
    walk(progress, clock, 40, 1.0)
    counts = [line.split()[1] for line in stream.getvalue().splitlines()[1:]]
    assert counts == ["10/10000", "20/10000", "30/10000", "40/10000"]


def test_a_day_fits_into_a_readable_log(clock):
    progress, stream = plain()
    progress.start("retrain", 8640)
    walk(progress, clock, 8640, 10.0)
    assert 30 < len(stream.getvalue().splitlines()) < 300


def test_a_fast_stage_says_its_end_only(clock):
    progress, stream = plain()
    progress.start("scores", 50)
    walk(progress, clock, 50, 0.001)
    progress.stop()
    assert len(stream.getvalue().splitlines()) == 2
    assert "scores 50/50  1e+03/s" in stream.getvalue()
    assert "left" not in stream.getvalue()


def test_steps_of_an_earlier_run_do_not_count_for_the_rate(clock):
    progress, stream = plain()
    progress.start("retrain", 1000, done=900)
    for done in (910, 920):
        clock.now += 10
        progress.update(done)
    assert stream.getvalue().splitlines() == [
        "retrain 900/1000",
        "retrain 910/1000  1/s  2 min left",
        "retrain 920/1000  1/s  1 min left",
    ]


def test_nothing_to_do_is_no_division_by_zero(clock):
    progress, _ = plain()
    progress.start("scores", 0)
    progress.update(0)
    progress.stop()


def test_a_long_line_is_one_line_and_no_markup():
    progress, stream = plain()
    line = "settings changed: [bold]" + "x" * 200
    progress.say(line)
    assert stream.getvalue() == f"{line}\n"


def test_a_bar_shows_stage_count_rate_and_loss():
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=120, color_system=None)
    progress = RichProgress(console)
    progress.start("supernet", 300, done=10)
    progress.update(150, loss=0.1234)
    progress.say("a [line]")
    progress.stop()
    last = [line for line in stream.getvalue().splitlines() if "supernet" in line][-1]
    assert "150/300" in last
    assert "loss 0.1234" in last
    assert "a [line]" in stream.getvalue()


def test_a_failure_leaves_the_cursor_visible(monkeypatch):
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=120)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr(shown, "RichProgress", lambda: RichProgress(console))

    def fail() -> None:
        with shown.show_progress() as progress:
            progress.start("supernet", 300)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert stream.getvalue().rindex("\x1b[?25h") > stream.getvalue().rindex("\x1b[?25l")


def test_lines_where_stderr_is_no_terminal(monkeypatch):
    monkeypatch.setattr("sys.stderr", io.StringIO())
    with shown.show_progress() as progress:
        assert isinstance(progress, PlainProgress)


@pytest.mark.parametrize(
    ("rate", "text"), [(12.54, "12.5/s"), (1, "1/s"), (0.25, "4 s each"), (0, "1e+09 s each")]
)
def test_slow_steps_are_told_in_seconds_each(rate, text):
    assert rate_text(rate) == text


def test_figures_are_named_and_short():
    assert figures_text({"loss": 0.123456, "beta": 0.5}) == "loss 0.1235  beta 0.5"
