"""Two works in threads of their own, of which one runs at a time, until it hands over to the other."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any


class Turns:
    """Who of two may run. The first work begins; each runs until it calls `hand_over` or ends.

    When one ends early the other goes on alone, and when one fails the other ends at its next turn.
    """

    def __init__(self, resumed: Callable[[int], None]) -> None:
        """Say what has to be done at the beginning of every turn, in the thread of the work that resumes.

        Args:
            resumed: gets the work's number, 0 or 1.
        """
        self._resumed = resumed
        self._changed = threading.Condition()
        self._turn = 0
        self._ended: set[int] = set()
        self._broken = False
        self._here = threading.local()

    @property
    def me(self) -> int:
        """The number of the work that asks."""
        number: int = self._here.number
        return number

    def hand_over(self) -> None:
        """Let the other work run, and return when it is one's own turn again."""
        with self._changed:
            if 1 - self.me not in self._ended:
                self._turn = 1 - self.me
            self._changed.notify_all()
        self._wait()

    def run(self, first: Callable[[], Any], second: Callable[[], Any]) -> tuple[Any, Any]:
        """Run both works to their ends and return their results.

        Raises:
            BaseException: what a work raised.
        """
        with ThreadPoolExecutor(2) as pool:
            futures = [pool.submit(self._work, number, work) for number, work in enumerate((first, second))]
            try:
                wait(futures)
            except BaseException:  # an interrupt of the caller
                self._break_off()
                raise
        errors = [error for error in (future.exception() for future in futures) if error is not None]
        for error in sorted(errors, key=lambda error: isinstance(error, _BrokenOffError)):
            raise error
        return futures[0].result(), futures[1].result()

    def _work(self, number: int, work: Callable[[], Any]) -> Any:
        self._here.number = number
        try:
            self._wait()
            return work()
        except BaseException:
            self._break_off()
            raise
        finally:
            with self._changed:
                self._ended.add(number)
                self._turn = 1 - number
                self._changed.notify_all()

    def _wait(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._turn == self.me or self._broken)
            if self._broken:
                raise _BrokenOffError
        self._resumed(self.me)

    def _break_off(self) -> None:
        with self._changed:
            self._broken = True
            self._changed.notify_all()


class _BrokenOffError(Exception):
    """The other work has failed."""
