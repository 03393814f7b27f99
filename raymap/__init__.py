"""Concept Entanglement Maps for personalized text-to-image models.

    from raymap import audit, open_run, run

Each public name is loaded when it is first asked for: importing this package loads neither torch nor Ray, nor anything
else that is heavy.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raymap.analysis.decide.compare import Comparison
    from raymap.analysis.decide.limits import AuditLimits
    from raymap.driver.commands import Audit, audit, compare, run
    from raymap.errors import IncompleteRunError, InputError, RaymapError
    from raymap.results import Run, open_run
    from raymap.study.file import load_study
    from raymap.study.model import Study

    __version__: str

__all__ = [
    "Audit",
    "AuditLimits",
    "Comparison",
    "IncompleteRunError",
    "InputError",
    "RaymapError",
    "Run",
    "Study",
    "__version__",
    "audit",
    "compare",
    "load_study",
    "open_run",
    "run",
]

_HOMES = {
    "raymap.analysis.decide.compare": ("Comparison",),
    "raymap.analysis.decide.limits": ("AuditLimits",),
    "raymap.driver.commands": ("Audit", "audit", "compare", "run"),
    "raymap.errors": ("IncompleteRunError", "InputError", "RaymapError"),
    "raymap.results": ("Run", "open_run"),
    "raymap.study.file": ("load_study",),
    "raymap.study.model": ("Study",),
}
"""The module in which each public name is defined."""


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("raymap")
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module 'raymap' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
