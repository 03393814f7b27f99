"""Errors that end a command, each with the exit code it ends with."""

from __future__ import annotations

from typing import Any


class RaymapError(Exception):
    """Base of all errors that a command turns into one line and an exit code."""

    exit_code = 1


class InputError(RaymapError):
    """Bad input: names the file, the key or prompt, and the remedy. Exit code 2."""

    exit_code = 2

    def __init__(self, where: str, problem: str, remedy: str) -> None:
        super().__init__(f"{where}: {problem}; {remedy}")
        self._args = (where, problem, remedy)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._args


class IncompleteRunError(RaymapError):
    """The run ended before all was drawn; the same command goes on. Exit code 3."""

    exit_code = 3


class StorageError(IncompleteRunError):
    """A file of the run folder cannot be written or read; what is there already stays. Exit code 3."""

    REMEDY = "make room there or permit it, then give the same command again"


class DrawingError(RaymapError):
    """A batch could not be drawn or scored (say, non-finite pixels): counts against the batch, not the run."""
