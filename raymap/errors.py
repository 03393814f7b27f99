"""The errors that end a command, each with its exit code."""

from __future__ import annotations

from typing import Any


class RaymapError(Exception):
    """Base class of the errors that a command reports in one line and turns into its exit code."""

    exit_code = 1


class InputError(RaymapError):
    """Bad input: the message names the file, key or prompt, the problem and the remedy. Exit code 2."""

    exit_code = 2

    def __init__(self, where: str, problem: str, remedy: str) -> None:
        super().__init__(f"{where}: {problem}; {remedy}")
        self._args: tuple[Any, ...] = (where, problem, remedy)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._args


class MisfitError(InputError):
    """An adapter does not fit the base, because it was made for another. Exit code 2."""

    def __init__(self, where: str, problem: str, base: str | None = None) -> None:
        such = f", with --base, such as {base}" if base else ""
        super().__init__(where, problem, f"use the base it was trained for{such}")
        self.problem = problem
        self._args = (where, problem, base)


class IncompleteRunError(RaymapError):
    """The run ended before everything was done; the same command continues it. Exit code 3."""

    exit_code = 3


class StorageError(IncompleteRunError):
    """A file of the run folder cannot be written or read; files that are complete stay. Exit code 3."""

    REMEDY = "free space there or allow writing, then give the same command again"


class DrawingError(RaymapError):
    """A batch could not be drawn or scored, because of non-finite pixels, for example. Only that batch fails."""
