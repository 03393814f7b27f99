"""What verdict.json holds: the types of its entries."""

from __future__ import annotations

from typing import Literal, TypedDict

from raymap.analysis.estimates import Interval, OverPrompts

VERSION = 1
"""The version of verdict.json's schema. A file of another version is made again from the run's scores."""
Answer = Literal["shifted", "unchanged", "cannot tell"]
Decision = Literal["pass", "fail", "undecided"]
Way = Literal["fell", "rose", "image"]
"""How a prompt shifted: its score fell or rose beyond the margin, or its images are further than another seed's."""


class ShiftedPrompt(TypedDict):
    """A prompt that shifted, and on what evidence.

    `tests` are the tests that find it at a false-discovery rate of 5 %: `moderated t` always, and those of the exact
    ones (`matchings`, `rank sum`, `sign flips`) that do.
    """

    prompt_id: str
    prompt: str
    ways: list[Way]
    signed: float
    margin: float | None
    e_per: float
    image_margin: float | None
    q: float
    seeds: int
    tests: list[str]


class Answers(TypedDict):
    """How many of an adapter's prompts have which answer. A prompt may have shifted in several ways.

    Attributes:
        shifted_at_least, changed_at_least: with 95 % confidence, so many prompts shifted beyond their margin, or
            changed in their mean score at all.
        shifted_prompts: the shifted ones: first those whose score fell, then those whose images alone moved, then those
            whose score rose; within each, the surest first.
        unchanged_prompts, open_prompts: the ids of the others.
    """

    prompts: int
    shifted: int
    fell: int
    rose: int
    image: int
    unchanged: int
    cannot_tell: int
    shifted_at_least: int
    changed_at_least: int
    shifted_prompts: list[ShiftedPrompt]
    unchanged_prompts: list[str]
    open_prompts: list[str]


class MoreSeeds(TypedDict):
    """What more seeds would settle: `half` seeds half of the open prompts; `beyond` are open at `most` seeds."""

    open: int
    half: int | None
    beyond: int
    most: int


class Held(TypedDict):
    """One limit of one adapter. `value` is over `of` prompts; `low` and `high` are its bounds with 95 % confidence."""

    limit: str
    at_most: float
    value: float | None
    low: float | None
    high: float | None
    of: int
    decision: Decision
    message: str
    look: list[str]


class AdapterVerdict(TypedDict):
    """The verdict on one adapter.

    Attributes:
        sentence: the answer in words, which every command and page shows.
        by_proof: whether every image is the base's own by proof.
        in_margins: the mean over non-target prompts of the signed change, in units of each prompt's margin.
        systematic: the root of the mean of `systematic` over prompts, with the sign of that mean.
        energy: the mean over prompts of the energy distance.
    """

    adapter: str
    method: str
    subject_category: str
    answer: Answer
    sentence: str
    by_proof: bool
    seeds: int
    e_sem: OverPrompts
    e_sem_signed: OverPrompts
    e_per: OverPrompts
    in_margins: OverPrompts
    systematic: Interval
    energy: OverPrompts
    others: Answers
    targets: Answers
    more_seeds: MoreSeeds
    limits: list[Held]


class Verdict(TypedDict):
    """The verdict on a run.

    Attributes:
        headline: the whole verdict in a sentence or two.
        refused: why there is no verdict; empty if there is one.
        notes: what weakens the verdict.
        margin: what the margin is, in one sentence.
        limits: the limits that were set; `decision` is None without any.
    """

    schema: int
    digest: str
    headline: str
    decision: Decision | None
    refused: list[str]
    notes: list[str]
    margin: str
    false_discovery_rate: float
    limits: dict[str, float]
    adapters: list[AdapterVerdict]
