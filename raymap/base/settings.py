"""What a base's folder itself says about drawing, in a file that raymap alone reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raymap.errors import InputError
from raymap.study.model import SamplerSettings

OWN = "raymap.json"
"""The file's name. It lies beside model_index.json, and most bases have none."""


@dataclass(frozen=True)
class OwnSettings:
    """`call` has further arguments of every call of the pipeline, `sampler` what a study that leaves it out draws with.

    Only `call` decides pixels, and so belongs to a base's digest: a run records its sampler.
    """

    call: Mapping[str, Any] = field(default_factory=dict)
    sampler: Mapping[str, Any] = field(default_factory=dict)

    def completed(self, asked: SamplerSettings) -> SamplerSettings:
        """Return settings with the base's own values where a study left them out."""
        missing = {key: value for key, value in self.sampler.items() if key not in asked.model_fields_set}
        return SamplerSettings(**asked.model_dump(exclude_unset=True), **missing)


def own_settings(folder: Path) -> OwnSettings:
    """Return what a base's folder says.

    Raises:
        InputError: the file cannot be read, or has other keys.
    """
    path = folder / OWN
    if not path.exists():
        return OwnSettings()
    try:
        return OwnSettings(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        remedy = 'write {"call": {…}, "sampler": {…}} with arguments of the pipeline and settings of a study'
        raise InputError(str(path), f"cannot be used ({error})", remedy) from error
