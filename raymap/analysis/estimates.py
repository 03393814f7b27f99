"""The types of estimates in JSON files: a value, its interval, and what it rests on."""

from __future__ import annotations

from typing import TypedDict


class Interval(TypedDict):
    """An estimate and its 95 % interval."""

    value: float | None
    low: float | None
    high: float | None


class Crossed(Interval):
    """An estimate over prompts and subjects (`raymap.analysis.numerics.crossed`): `n` prompts, `subjects` subjects."""

    n: int
    subjects: int
    df: float | None
    method: str
    reason: str | None


class CrossedTested(Crossed):
    """A crossed estimate with its p-value against 0."""

    p: float | None


class OverPrompts(Interval):
    """One adapter's mean over `n` prompts."""

    n: int
    df: float | None
    method: str
    reason: str | None


class Percentile(TypedDict):
    """A threshold from `values` seed pairs of `n` prompts, with its 95 % interval."""

    value: float
    low: float | None
    high: float | None
    n: int
    values: int
    method: str
    reason: str | None


class PairsMean(Crossed):
    """A mean over `values` seed pairs."""

    values: int
