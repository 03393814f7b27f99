"""How an actor is built so that bad input, which it may meet only on its own node, reaches the driver."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from raymap.errors import InputError

Plain = TypeVar("Plain")


class Built(Generic[Plain]):
    """A plain class, built when its actor starts; bad input that it meets is reported by the actor's first call.

    The driver gets an error of a call as it was raised, while it gets that of an actor's constructor as text alone.
    """

    def __init__(self, build: Callable[[], Plain]) -> None:
        self._problem: InputError | None = None
        try:
            self.plain = build()
        except InputError as error:
            self._problem = error

    def checked(self) -> Plain:
        """Return the plain class.

        Raises:
            InputError: it could not be built.
        """
        if self._problem is not None:
            raise self._problem
        return self.plain
