"""The log of a run: ``log.jsonl``, one record a line, for programs to read."""

import json
import os
import time
from pathlib import Path
from typing import Any

from diffnas.progress import Progress


def _ends_a_line(file: Path) -> bool:
    with file.open("rb") as stream:
        stream.seek(max(0, stream.seek(0, os.SEEK_END) - 1))
        return stream.read() in (b"", b"\n")


class RunLog(Progress):
    """Hands everything on, and writes the records for programs to ``log.jsonl``."""

    def __init__(self, file: Path, progress: Progress) -> None:
        self._stream = file.open("a", encoding="utf-8")
        if not _ends_a_line(file):  # a full disk has cut it short: the next record has its own
            self._stream.write("\n")
        self._progress = progress

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def start(self, stage: str, total: int, done: int = 0) -> None:
        """Hand on."""
        self._progress.start(stage, total, done)

    def update(self, done: int, **figures: float) -> None:
        """Hand on."""
        self._progress.update(done, **figures)

    def stop(self) -> None:
        """Hand on."""
        self._progress.stop()

    def say(self, line: str) -> None:
        """Hand on, and keep."""
        self._progress.say(line)
        self.log(said=line)

    def log(self, **record: Any) -> None:
        """Append one line."""
        self._stream.write(json.dumps({"time": round(time.time(), 3), **record}) + "\n")
        self._stream.flush()
