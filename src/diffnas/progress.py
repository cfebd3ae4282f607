"""How long work speaks to whoever watches. The library is silent unless given another one."""

from typing import Any


class Progress:
    """What the stages call; this one says nothing. The command line gives one that draws bars."""

    def start(self, stage: str, total: int, done: int = 0) -> None:
        """A stage of ``total`` steps begins, ``done`` of them already taken by an earlier run."""

    def update(self, done: int, **figures: float) -> None:
        """``done`` steps are taken; ``figures`` are what to show, e.g. ``loss=0.12``."""

    def stop(self) -> None:
        """The stage is over."""

    def say(self, line: str) -> None:
        """A line for a person."""

    def log(self, **record: Any) -> None:
        """A record for a program (one line of ``log.jsonl``)."""


class OneOfThreads(Progress):
    """Shows one of several equal threads as all of them, after what was ``done`` before."""

    def __init__(self, progress: Progress, done: int, threads: int) -> None:
        self.progress, self.done, self.threads = progress, done, threads

    def update(self, done: int, **figures: float) -> None:
        """Count on."""
        self.progress.update(self.done + self.threads * done, **figures)
