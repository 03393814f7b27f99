"""Progress of a run: shown as bars on a terminal, as a line now and then where output is piped, or not at all."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars

LINE_EVERY_S = 15.0


class Progress:
    """What a run tells of itself while it works; this one shows nothing."""

    def phase(self, name: str, total: int, unit: str) -> None:
        """Begin a countable phase, such as drawing `total` images."""

    def note(self, text: str) -> None:
        """Say something that is worth keeping on the screen, in one line."""

    def now(self, text: str) -> None:
        """Say what is happening at the moment."""

    def workers(self, up: int, asked: int) -> None:
        """Say how many workers are up, of how many that Ray was asked for."""

    def trained(self, steps: int) -> None:
        """Count optimizer steps."""

    def drawn(self, images: int) -> None:
        """Count images that are drawn, scored and committed."""

    def tick(self) -> None:
        """Refresh the display."""


class LiveProgress(Progress):
    """Shows what a run is doing: images done of all, images/s, time left, workers, the step at hand."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bars = Bars(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[now]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None
        self._name, self._unit, self._total, self._done = "", "", 0, 0
        self._workers = ""
        self._now = ""
        self._started = self._last_line = time.monotonic()

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bars.stop()

    def phase(self, name: str, total: int, unit: str) -> None:
        self._name, self._unit, self._total, self._done = name, unit, total, 0
        self._started = self._last_line = time.monotonic()
        self._now = "starting workers"
        if self._task is not None:
            self._bars.remove_task(self._task)
        self._task = self._bars.add_task(name, total=total, rate="", now="")
        if not self.console.is_terminal:
            self.console.print(f"{name}: {total} {unit}")

    def note(self, text: str) -> None:
        self.console.print(text, highlight=False)

    def now(self, text: str) -> None:
        self._now = text

    def workers(self, up: int, asked: int) -> None:
        self._workers = f"{up} of {asked} workers" if asked else ""

    def trained(self, steps: int) -> None:
        self._count(steps)

    def drawn(self, images: int) -> None:
        self._count(images)

    def _count(self, n: int) -> None:
        self._done += n
        self.tick()

    def tick(self) -> None:
        elapsed = time.monotonic() - self._started
        rate = f"{self._done / elapsed:.1f} {self._unit}/s" if self._done and elapsed > 0 else ""
        at_hand = ", ".join(part for part in (self._workers, self._now) if part)
        if self._task is not None:
            self._bars.update(self._task, completed=self._done, rate=rate, now=at_hand)
        if not self.console.is_terminal and time.monotonic() - self._last_line > LINE_EVERY_S:
            self._last_line = time.monotonic()
            left = f"{(self._total - self._done) * elapsed / self._done:.0f} s left" if self._done else ""
            parts = [f"{self._done}/{self._total} {self._unit}", rate, left, at_hand]
            line = f"{self._name}: {', '.join(part for part in parts if part)}"
            self.console.print(line, highlight=False)
