"""Progress on stderr: bars on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.text import Text

from diffnas.figures import duration
from diffnas.progress import Progress

LEAST = 0.5
"""Seconds between two lines, at the least."""


class RichProgress(Progress):
    """One bar per stage, with rate, time left and the figures of the last step."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self._bars: Bars | None = None

    def start(self, stage: str, total: int, done: int = 0) -> None:
        """Draw the stage's bar."""
        self.stop()
        self._bars = Bars(
            TextColumn("{task.description}", style="bold", markup=False),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            TextColumn("{task.fields[figures]}", style="cyan", markup=False),
            console=self.console,
        )
        self._bars.add_task(f"{stage:<10}", total=total, completed=done, figures="")
        self._bars.start()

    def update(self, done: int, **figures: float) -> None:
        """Move the bar; figures stay until replaced."""
        if self._bars is not None:
            task = self._bars.tasks[0].id
            self._bars.update(task, completed=done)
            if figures:
                self._bars.update(task, figures=figures_text(figures))

    def stop(self) -> None:
        """Leave the bar as it stands."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def say(self, line: str) -> None:
        """Print above the bar."""
        self.console.print(line, markup=False, highlight=False)


class PlainProgress(Progress):
    """A line at a stage's start and end, and between them now and then.

    That is at each tenth of a short stage, and every ten seconds, then less and less often, of a
    long one: a log of days stays readable.
    """

    def __init__(self, console: Console | None = None, every: float = 10.0) -> None:
        self.console = console or Console(stderr=True, soft_wrap=True)
        self._every = every
        self._stage: str | None = None

    def start(self, stage: str, total: int, done: int = 0) -> None:
        """Begin counting; says how much is there already."""
        self._stage, self._total, self._first, self._done = stage, total, done, done
        self._begun = self._told = time.monotonic()
        self._told_at = done
        self._figures: dict[str, float] = {}
        self.say(f"{stage} {done}/{total}" if done else f"{stage} of {total}")

    def update(self, done: int, **figures: float) -> None:
        """Speak if there is something new to say."""
        self._done = done
        self._figures = figures or self._figures  # those of one step together, none from before
        now = time.monotonic()
        waited, tenth = now - self._told, done - self._told_at >= self._total / 10
        patience = max(self._every, (now - self._begun) / 20)
        if waited >= (LEAST if tenth else patience):
            self._tell()

    def stop(self) -> None:
        """Say how the stage ended."""
        if self._stage is not None and self._done > self._told_at:
            self._tell()
        self._stage = None

    def say(self, line: str) -> None:
        """Print it."""
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _tell(self) -> None:
        now = time.monotonic()
        speed = (self._done - self._first) / max(now - self._begun, 1e-9)
        left = (self._total - self._done) / speed if speed else 0.0
        parts = [f"{self._stage} {self._done}/{self._total}", rate_text(speed)]
        parts += [f"{duration(left)} left"] if self._done < self._total else []
        parts += [figures_text(self._figures)] if self._figures else []
        self.say("  ".join(parts))
        self._told, self._told_at = now, self._done


@contextmanager
def show_progress() -> Iterator[Progress]:
    """What suits stderr: bars on a terminal, lines in a file or pipe; ended whatever happens."""
    progress = RichProgress() if sys.stderr.isatty() else PlainProgress()
    try:
        yield progress
    finally:
        progress.stop()  # a failure leaves a clean screen


def rate_text(per_second: float) -> str:
    """Steps a second, or seconds a step when slow: ``12.5/s``, ``3.2 s each``."""
    return f"{per_second:.3g}/s" if per_second >= 1 else f"{1 / max(per_second, 1e-9):.3g} s each"


def figures_text(figures: dict[str, float]) -> str:
    """``loss 0.1234  beta 0.5``."""
    return "  ".join(f"{name} {value:.4g}" for name, value in figures.items())


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(rate_text(speed) if speed else "", style="dim")
