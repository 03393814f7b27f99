"""Adapters that a study brings along: each is read and checked, and later copied into the run folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from raymap.adapters.card import CARD, check_weights, names_of, parse_card, read_card, with_config, write_card
from raymap.adapters.glance import glance
from raymap.base.model import Base
from raymap.errors import InputError
from raymap.store.files import copy_atomically
from raymap.study.adapter import AdapterInfo
from raymap.study.model import Brought
from raymap.study.subject import NAME


@dataclass(frozen=True)
class Found:
    """An adapter that was brought along.

    `card` is what it gets as adapter.json in the run folder, `triggers` are `Adapter.triggers`, and `weights` are the
    names of the weights that it updates. `numbers` counts what it holds, and `survives` is what is left of its
    update in fewer bits, by format, where that was asked for. `from_base` are the weights whose update is computed from
    the base's own. `notes` are sentences that its user should know.
    """

    info: AdapterInfo
    card: dict[str, Any]
    files: tuple[Path, ...]
    triggers: tuple[str, ...] | None
    weights: frozenset[str]
    numbers: int = 0
    survives: Mapping[str, float] = field(default_factory=dict)
    from_base: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()


def find(entry: Brought, path: Path, base: Base, triggered: bool, measure: bool = False) -> Found:
    """Read an adapter that a study brings along; a folder that raymap wrote has a card, and other files get one.

    Args:
        path: where it is on this machine.
        triggered: its trigger is put into prompts.
        measure: how much of its update survives in fewer bits is to be measured.

    Raises:
        InputError: it cannot be read, does not fit the base, or has no trigger although it needs one.
    """
    from raymap.adapters.read import (  # loads torch, and most studies bring no adapter
        foreign_card,
        method_of,
        read_adapter,
        token_of,
    )

    notes: tuple[str, ...] = ()
    if (path / CARD).exists():
        info, card = parse_card(path, base.sha256)
        if entry.trigger:
            card |= {"token": entry.trigger, "phrase": entry.trigger}
        read = read_adapter(path, base.skeleton, token_of(card), method_of(card))
        check_weights(path, read.files, info)
        where = f"{path / CARD}"
        if info.method != read.method:
            problem = f"{info.method!r} is not what its file holds, a {read.method}"
            raise InputError(f"{where}: method", problem, "bring an adapter and no control, or correct its card")
        category = entry.category or info.subject_category
        info = replace(info, name=entry.name or info.name, subject_category=category)
        if not re.fullmatch(NAME, info.name):
            raise InputError(f"{where}: name", f"{info.name!r} cannot name an adapter", "give its entry a `name:`")
        card |= {"name": info.name, "subject_category": info.subject_category}
    else:
        read = read_adapter(path, base.skeleton, entry.trigger)
        card = foreign_card(entry.short_name, entry.category, entry.trigger, read, base.sha256)
        info = AdapterInfo(**{field.name: card[field.name] for field in fields(AdapterInfo)})
        notes = (*glance(path).warnings, *read.adapter.notes)
    if triggered and card.get("phrase") is None:
        problem = "has no trigger that `protocol: triggered` could put into a prompt"
        raise InputError(f"adapter {info.name}", problem, "give its entry a `trigger:`")
    adapter = read.adapter
    found = Found(info, card, with_config(read.files), adapter.triggers, frozenset(adapter.updates), adapter.size)
    from_base = frozenset(name for name, update in adapter.updates.items() if update.from_base)
    found = replace(found, from_base=from_base, notes=notes)
    return replace(found, survives=_survives(adapter.updates, base)) if measure else found


def _survives(updates: Mapping[str, Any], base: Base) -> dict[str, float]:
    from raymap.adapters.survival import sampled, surviving  # loads torch
    from raymap.base.stored import stored_weights

    if base.file:  # its weights have the names of another layout
        return {}
    asked = sampled(updates)
    weights = stored_weights(base.folder, asked)
    return surviving(updates, weights) if weights.keys() == set(asked) else {}


def bring(found: Found, target: Path, base_sha256: str) -> None:
    """Copy an adapter into the run folder, its card last.

    Raises:
        InputError: another adapter of this name is there already.
    """
    if (target / CARD).exists():
        info, card = read_card(target, base_sha256)
        called = ("token", "phrase")
        if info != found.info or [card.get(key) for key in called] != [found.card.get(key) for key in called]:
            problem = f"is not the adapter {found.files[0]} as the study names it"
            raise InputError(str(target), problem, "give another --output")
    else:
        for name, path in names_of(found.files).items():
            copy_atomically(path, target / name)
        write_card(target, found.card)
