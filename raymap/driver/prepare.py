"""Looks at everything a study names before anything starts: base, judges, references, adapters brought along."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from raymap.adapters.card import CARD, read_card, with_config
from raymap.adapters.triggers import may_stand_in
from raymap.base import folder as bases
from raymap.base.skeleton import Skeleton, skeleton_of
from raymap.driver.interventions import check_interventions, planned_variants
from raymap.errors import InputError
from raymap.personalize.orders import AdapterOrder, orders
from raymap.personalize.references.read import check_references
from raymap.plan.blocks import BASE, AdapterInfo
from raymap.scoring.names import check_judges
from raymap.study.interventions import MARK
from raymap.study.methods.method import CONTROL
from raymap.study.model import Brought, Study
from raymap.study.subject import NAME
from raymap.study.suite import Prompt


@dataclass(frozen=True)
class Found:
    """An adapter that was brought along.

    What it is, the card it gets in the run folder, files, `Adapter.triggers`, the names of the weights it updates.
    """

    info: AdapterInfo
    card: dict[str, Any]
    files: tuple[Path, ...]
    triggers: tuple[str, ...] | None
    weights: frozenset[str]


@dataclass(frozen=True)
class Prepared:
    """A study whose every input was looked at: what to train, what was brought along, for which base.

    `missing` says what a run needs and a dry run does not; with it, `base` may be an outline (raymap.base.folder).
    """

    study: Study
    base: Path
    base_sha256: str
    orders: tuple[AdapterOrder, ...]
    brought: tuple[Found, ...]
    missing: tuple[str, ...] = ()

    @property
    def images(self) -> int:
        """Images the whole study holds, those of base and identity controls included."""
        models = 1 + len(self.orders) + len(self.brought)
        return models * len(self.study.prompts) * len(self.study.seeds)

    @property
    def controls(self) -> int:
        """How many of the adapters are identity controls."""
        methods = [order.method for order in self.orders] + [found.info.method for found in self.brought]
        return methods.count(CONTROL)

    @property
    def proved(self) -> int:
        """Images of adapters and controls that will be proved to be the base's own, and not be drawn."""
        return self.proved_of(controls=False) + self.proved_of(controls=True)

    def proved_of(self, controls: bool) -> int:
        """Return how many of `proved` are those of the identity controls, or of the other adapters."""
        if self.study.draw_anyway:
            return 0
        triggered = self.study.protocol == "triggered"
        orders = [order for order in self.orders if (order.method == CONTROL) is controls]
        brought = [found for found in self.brought if (found.info.method == CONTROL) is controls]
        plain = [order.triggers for order in orders if not (triggered and order.subject)]
        plain += [found.triggers for found in brought if not triggered]
        same = [
            not any(may_stand_in(trigger, prompt.text) for trigger in triggers)
            for triggers in plain
            if triggers is not None
            for prompt in self.study.prompts
        ]
        return sum(same) * len(self.study.seeds)

    @property
    def touched(self) -> dict[str, frozenset[str]]:
        """The names of the weights that each adapter updates, controls left out."""
        skeleton = skeleton_of(self.base)
        touched = {order.name: order.touched(skeleton) for order in self.orders if order.method != CONTROL}
        return touched | {f.info.name: f.weights for f in self.brought if f.info.method != CONTROL}

    @property
    def variants(self) -> int:
        """How many variants of its adapters the study asks for."""
        asked = self.study.interventions
        return len(planned_variants(asked, self.touched)) if asked else 0


def prepare(study: Study, dry: bool = False) -> Prepared:
    """Look at everything the study names: base, judges, reference images, adapters brought along.

    Args:
        dry: nothing is to be run. References that are not there, and a base of a known architecture that was not
            fetched, are then named in `missing`; what is there and cannot be used is refused all the same.

    Raises:
        InputError: the first thing that cannot be used. Nothing has been started or written by then.
    """
    check_judges(study.clip, study.lpips)
    # An adapter that was trained for the base names its digest, which an outline has not.
    outline = bases.outline(study.base) if dry and not study.adapters else None
    folder = outline or bases.resolve(study.base)
    base_sha256 = bases.digest(folder)
    absent = [path for subject in study.subjects for path in subject.references if dry and not path.exists()]
    references = {subject.name: check_references(subject, absent) for subject in study.subjects}
    brought = [_find(entry, skeleton_of(folder), base_sha256) for entry in study.adapters]
    for found in brought:
        if study.protocol == "triggered" and found.card.get("phrase") is None:
            problem = "has no trigger that `protocol: triggered` could put into a prompt"
            raise InputError(f"adapter {found.info.name}", problem, "give its entry a `trigger:`")
    wanted = orders(study, base_sha256, references)
    for order in wanted:
        order.check(skeleton_of(folder))
    names = [o.name for o in wanted] + [found.info.name for found in brought]
    for name in names:
        if names.count(name) > 1 or name == BASE:
            raise InputError(f"adapter {name}", "is a name that is taken", "rename the subject or the adapter")
        if MARK in name:
            raise InputError(
                f"adapter {name}", f"has {MARK!r} in its name, as variants have", "give its entry a `name:`"
            )
    missing = _missing(study, outline, absent)
    prepared = Prepared(study, folder, base_sha256, wanted, tuple(brought), missing)
    if study.interventions:
        check_interventions(study.interventions, prepared.touched)
    return prepared


def describe(prepared: Prepared) -> str:
    """Return what a run would do, in one line. Models are the base and the adapters; identity controls stand apart."""
    study = prepared.study
    pictures = len(study.prompts) * len(study.seeds)
    controls = prepared.controls
    models = 1 + len(prepared.orders) + len(prepared.brought) - controls
    training = sum(order.subject is not None for order in prepared.orders)
    line = (
        f"{study.name}: {len(study.prompts)} prompts x {len(study.seeds)} seeds x {models} models = "
        f"{models * pictures} images, {prepared.proved_of(controls=False)} of them proved to be the base's own and not "
        "drawn; "
    )
    if controls:
        line += (
            f"{controls} identity control{'' if controls == 1 else 's'} = {controls * pictures} images more, "
            f"{prepared.proved_of(controls=True)} of them proved; "
        )
    line += f"{training} adapter{'' if training == 1 else 's'} to train"
    if number := prepared.variants:
        line += f"; interventions: {number} variants = {number * pictures} images more"
    return line


def too_long(prepared: Prepared) -> tuple[Prompt, ...]:
    """Return the prompts of which the base's text encoder sees only the beginning."""
    skeleton = skeleton_of(prepared.base)
    return tuple(p for p in prepared.study.prompts if len(skeleton.tokenizer.encode(p.text).ids) > skeleton.text_length)


def _missing(study: Study, outline: Path | None, absent: list[Path]) -> tuple[str, ...]:
    """Return what is named by the study and not there, a line a kind."""
    missing = []
    if outline is not None:
        side = bases.picture_side(outline)
        missing.append(f"base {study.base}: not fetched; its known architecture stands in, pictures of {side}x{side}")
    if absent:
        of = ", ".join(subject.name for subject in study.subjects if set(subject.references) & set(absent))
        missing.append(f"references: {len(absent)}, of {of}; the first is {absent[0]} (docs/subjects.md)")
    return tuple(missing)


def _find(entry: Brought, skeleton: Skeleton, base_sha256: str) -> Found:
    """Read an adapter that a study brings along; a folder that raymap wrote has a card, other files get one."""
    from raymap.adapters.read import foreign_card, method_of, read_adapter

    if (entry.path / CARD).exists():
        info, card = read_card(entry.path, base_sha256)
        if entry.trigger:
            card |= {"token": entry.trigger, "phrase": entry.trigger}
        read = read_adapter(entry.path, skeleton, card.get("token"), method_of(card))
        said = f"{entry.path / CARD}"
        if info.method != read.method:
            problem = f"{info.method!r} is not what its file holds, a {read.method}"
            raise InputError(f"{said}: method", problem, "bring an adapter and no control, or correct its card")
        category = entry.category or info.subject_category
        info = replace(info, name=entry.name or info.name, subject_category=category)
        if not re.fullmatch(NAME, info.name):
            raise InputError(f"{said}: name", f"{info.name!r} is no name of an adapter", "give its entry a `name:`")
        card |= {"name": info.name, "subject_category": info.subject_category}
    else:
        read = read_adapter(entry.path, skeleton, entry.trigger)
        card = foreign_card(entry.short_name, entry.category, entry.trigger, read, base_sha256)
        info = AdapterInfo(**{field.name: card[field.name] for field in fields(AdapterInfo)})
    return Found(info, card, with_config(read.files), read.adapter.triggers, frozenset(read.adapter.updates))
