"""Examines adapter files before a study names them: whether they fit a base, and what to be wary of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from raymap.adapters.glance import Glance, glance
from raymap.adapters.origin import EMBEDDED, bases_for, kind_of
from raymap.base.fetch import offline
from raymap.base.folder import known_outline
from raymap.base.model import Base, open_base
from raymap.embedded.model import PIPELINES
from raymap.study.suite import read_suite

if TYPE_CHECKING:
    import torch

    from raymap.adapters.check import Finding


COMPARE = "what a whole model changes is told by its base's weights: give the base that it was trained from as --base"


def look(adapters: Sequence[Path], base: str | None, weights: str | None = None) -> list[Glance]:
    """Return what the headers of adapters' files tell, and whether they are for the base, as far as that tells it.

    Args:
        base: as in `check_files`; None leaves it open.
        weights: as in `check_files`.

    Raises:
        InputError: the base cannot be used.
    """
    seen = [glance(path) for path in adapters]
    if base is None:
        return seen
    kind = kind_of(_opened(base, weights).skeleton)
    return [one.held_against(kind) for one in seen]


def check_files(
    adapters: Sequence[Path],
    base: str | None,
    suite: str = "embedded",
    trigger: str | None = None,
    weights: str | None = None,
) -> list[Finding]:
    """Return what each adapter file holds; one that does not fit is described too, with the reason.

    A base of the hub whose architecture is known is not fetched for it; updates are then compared with no weights.

    Args:
        base: `embedded`, a diffusers folder, a single-file checkpoint, or a hub id. None: each file is held against the
            known architecture of the kind of base that it was made for, where nothing tells against the embedded base.
        suite: the name or path of prompts in which no trigger should occur by accident.
        trigger: a new name for the adapters' learned token.
        weights: a single file whose denoiser takes the place of the base's.

    Raises:
        InputError: the base or the suite cannot be used.
    """
    prompts = [prompt.text for prompt in read_suite(suite, "--suite", Path())]
    given = None if base is None else [_Held(_opened(base, weights))]

    @cache
    def stand_in(name: str) -> _Held:
        outline = known_outline(name)
        return _Held(_opened(name, None) if outline is None else Base.at(outline, name))

    def against(seen: Glance) -> list[_Held]:
        return given or [stand_in(name) for name in bases_for(seen.made_for) or bases_for(EMBEDDED)]

    found = [(path, glance(path)) for path in adapters]
    return [_finding(path, seen, against(seen), prompts, trigger) for path, seen in found]


def _finding(
    path: Path, seen: Glance, against: Sequence[_Held], prompts: Sequence[str], trigger: str | None
) -> Finding:
    """Return the finding against the first of some bases that an adapter fits; where it fits none, the first one."""
    from raymap.adapters.check import Finding, examine  # loads torch, which `look` does without

    if seen.problem and not seen.may_be_read:
        return Finding(seen, problem=seen.problem, warnings=seen.warnings)
    if seen.kind and seen.kind.is_base and against[0].weights is None:
        return Finding(seen, notes=(COMPARE,), warnings=seen.warnings)
    found = []
    for one in against:
        finding = examine(path, seen, one.base.skeleton, one.weights, prompts, trigger)
        found.append(replace(finding, base=one.base.name, outline=one.base.is_outline))
        if not finding.problem:
            return found[-1]
    return found[0]


@dataclass(frozen=True)
class _Held:
    """A base that adapters are held against."""

    base: Base

    @cached_property
    def weights(self) -> _Weights | None:
        """Its weights, of which those are read that are asked for; None of an outline."""
        return None if self.base.is_outline else _Weights(self.base)


class _Weights:
    """Returns a base's own weights by name, from its files; its pipeline is loaded where these have other names."""

    def __init__(self, base: Base) -> None:
        self._base = base
        self._all: Mapping[str, torch.Tensor] | None = None

    def __call__(self, names: Iterable[str]) -> Mapping[str, torch.Tensor]:
        from raymap.base.stored import stored_weights

        asked = list(names)
        if self._base.file is None and self._all is None:
            stored = stored_weights(self._base.folder, asked)
            if stored.keys() == set(asked):
                return stored
        if self._all is None:
            from raymap.adapters.resident import weights_of  # loads diffusers, which takes seconds
            from raymap.base.pipeline import load

            self._all = weights_of(load(self._base.folder, file=self._base.file))
        return {name: self._all[name].detach() for name in asked}


def _opened(base: str, weights: str | None) -> Base:
    if base in PIPELINES:
        offline()
    return open_base(base, weights, outline=True)
