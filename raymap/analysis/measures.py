"""The measures of a cell: the names, labels and decimals that every table, file and page shares."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """A number that every cell of the map has.

    Attributes:
        name: its key in statistics.json.
        label: its heading in tables and in the report.
        digits: its decimals in print, or its significant digits if it is of `any_scale`.
        tau: the key of its threshold under `noise_floor` in statistics.json; None if it has none there.
        column: its column in a frame of cells.
        says: what it tells, in a word or two, for the menu of the report's map.
        tests: the tests of a cell (`sem`, `per`, `signed` of shifts.arrow) that decide whether a value is significant.
        floors: the names of the measures whose thresholds decide whether a cell lies above the noise floor.
        better: the sign of a change for the better; 0 for a measure that has no sign.
        any_scale: whether its values may have any size, as those of further judges.
    """

    name: str
    label: str
    digits: int
    tau: str | None
    column: str
    says: str = ""
    tests: tuple[str, ...] = ()
    floors: tuple[str, ...] = ()
    better: int = 0
    any_scale: bool = False


E_SEM = Measure("e_sem", "E_sem", 4, "tau_sem", "e_sem", "meaning", ("sem",), ("e_sem",))
SIGNED = Measure(
    "e_sem_signed", "signed", 4, None, "e_sem_signed", "better or worse", ("signed",), ("e_sem",), better=1
)
E_PER = Measure("e_per", "E_per", 3, "tau_per", "e_per", "image", ("per",), ("e_per",))
E = Measure("e", "E", 3, None, "entanglement", "both", ("sem", "per"), ("e_sem", "e_per"))

BASIC = (E_SEM, E_PER)
"""The two measures that are scored, and that E combines."""
IN_MAP = (E_SEM, SIGNED, E_PER)
"""The measures that map.arrow holds."""
ALL = (*IN_MAP, E)
