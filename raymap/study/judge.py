"""What a judge declares about its numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class JudgeInfo:
    """What a judge's numbers mean. Of a pair judge, `higher_is_better` is always false."""

    name: str
    kind: Literal["pair", "prompt"]
    version: str
    unit: str
    higher_is_better: bool
