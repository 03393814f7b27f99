"""A matrix of setups: lists of values go in, one validated, frozen `Setup` per combination comes out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from raymap.base.fetch import offline
from raymap.base.model import open_base
from raymap.bench.models import SIZES
from raymap.embedded.model import PIPELINES
from raymap.errors import InputError
from raymap.scoring.names import RANDOM, check_timed_judges
from raymap.study.file import override
from raymap.study.model import Compile, SpeedSettings
from raymap.study.recipes import Positive

QUICK = {"batch_size": [4, 16], "steps": 4}
"""The matrix of --quick: the embedded base at two batch sizes."""


class Setup(BaseModel):
    """One way of generating and scoring images.

    `base` is a study's base, or `random:SIZE`: an architecture of that size with random weights. `resolution` is the
    side of the images in pixels, by default the base's own. `threads` is the number per worker, `adapters` the number
    of random rank-4 LoRAs that are swapped in. `compile` is torch.compile's mode for denoiser and decoder, `attention`
    the torch backend that computes attention. `scorer` decides whether a worker scores its own images (`inline`) or a
    process beside it does (`apart`). `clip` and `lpips` are a study's, or `random:ARCHITECTURE` with random weights.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: Annotated[str, Field(min_length=1)] = "embedded"
    resolution: Annotated[int, Field(gt=0, multiple_of=64)] | None = None
    steps: Positive = 20
    guidance_scale: Annotated[float, Field(ge=1)] = 5.0
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    batch_size: Positive = 16
    compile: Compile = "none"
    channels_last: bool = False
    attention: Literal["auto", "math", "flash", "efficient", "cudnn"] = "auto"
    device: Literal["cpu", "cuda"] = Field(default_factory=lambda: "cuda" if torch.cuda.is_available() else "cpu")
    workers: Positive = 1
    threads: Positive = 1
    scorer: Literal["inline", "apart"] = "inline"
    adapters: Positive = 2
    clip: str = "embedded"
    lpips: str = "embedded"

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.base.startswith(RANDOM) and self.base.removeprefix(RANDOM) not in SIZES:
            raise ValueError(
                f"base: {self.base} names an unknown size; write {' or '.join(RANDOM + name for name in SIZES)}"
            )
        gpus = torch.cuda.device_count()
        if self.device == "cuda" and self.workers > gpus:
            raise ValueError(f"workers: {self.workers} workers need a GPU each, and this machine has {gpus}")
        return self

    @property
    def speed(self) -> SpeedSettings:
        """The part of the setup that a study calls `speed`."""
        return SpeedSettings(compile=self.compile, channels_last=self.channels_last)

    @property
    def offline(self) -> bool:
        """Whether base and judges are random or embedded, so that nothing is needed from the model hub."""
        return all(name in PIPELINES or name.startswith(RANDOM) for name in (self.base, self.clip, self.lpips))

    @property
    def plain(self) -> Setup:
        """The same work with the plain setting, the reference for differences in images and scores."""
        plain = {"compile": "none", "channels_last": False, "dtype": "float32", "attention": "auto"}
        return self.model_copy(update=plain)

    @property
    def key(self) -> str:
        """A digest that identifies the setup in a record."""
        return hashlib.sha256(json.dumps(self.model_dump(), sort_keys=True).encode()).hexdigest()[:16]


def read_setups(path: Path | None, overrides: tuple[str, ...] = (), quick: bool = False) -> tuple[Setup, ...]:
    """Return every combination of the values that a YAML file and overrides give, the last key varying fastest.

    Args:
        path: a YAML file that gives keys of `Setup` a value or a list of values each; None: no file.
        overrides: `key=value` pairs; values are written as in the file.
        quick: whether to start from the values of QUICK.

    Raises:
        InputError: an unknown key or an impossible value; the message names the file and the key.
    """
    source = "--set" if path is None else str(path)
    raw: dict[str, Any] = dict(QUICK) if quick else {}
    if path is not None:
        raw |= _read(path)
    for pair in overrides:
        override(raw, pair)
    lists = {key: value if isinstance(value, list) else [value] for key, value in raw.items()}
    if empty := [key for key, values in lists.items() if not values]:
        raise InputError(f"{source}: {empty[0]}", "has no value", "give it a value or a list of values")
    setups: dict[str, Setup] = {}
    for values in product(*lists.values()):
        try:
            setup = Setup.model_validate(dict(zip(lists, values, strict=True)))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join([source, *(str(part) for part in first["loc"])])
            remedy = f"a setup's keys are {', '.join(Setup.model_fields)}"
            raise InputError(where, first["msg"].removeprefix("Value error, "), remedy) from None
        check_timed_judges(setup.clip, setup.lpips)
        setups[setup.key] = setup
    return tuple(setups.values())


def fetch_bases(setups: Sequence[Setup]) -> None:
    """Fetch every base that setups name, before the first of them is measured; random and embedded ones are here.

    Raises:
        InputError: a base cannot be fetched.
    """
    if all(setup.offline for setup in setups):
        offline()
    for base in sorted({setup.base for setup in setups if not setup.base.startswith(RANDOM)}):
        open_base(base)


def _read(path: Path) -> dict[str, Any]:
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            str(path), f"cannot be read ({error})", "give the path of a YAML file with a matrix of setups"
        ) from error
    except yaml.YAMLError as error:
        raise InputError(str(path), f"is not YAML ({' '.join(str(error).split())})", "correct that line") from error
    if not isinstance(raw, dict):
        raise InputError(str(path), "has no keys", f"a setup's keys are {', '.join(Setup.model_fields)}")
    return raw
