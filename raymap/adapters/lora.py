"""LoRA and its relatives: files in any community's layout -> updates of named weights.

Keys are read in `keys`, kinds of updates in `kinds` and `algebra`, and modules are placed by `placement`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from raymap.adapters.algebra import Decomposed
from raymap.adapters.card import config_of
from raymap.adapters.container import Container
from raymap.adapters.keys import is_lora_like, part_of, unread_kind
from raymap.adapters.kinds import FULL, GLORA, LOHA, LOKR, LORA, OFT, SCALING, Extent, Module, Scaling, updates_of
from raymap.adapters.placement import Place, place
from raymap.adapters.update import Adapter, Additive, Replacement, Update
from raymap.base.skeleton import Skeleton
from raymap.errors import InputError, MisfitError

LORA_FILE = "pytorch_lora_weights.safetensors"
METADATA = "lora_adapter_metadata"
"""The header entry in which peft and diffusers keep a LoRA's configuration, alpha included."""
PLAIN = "give a file of a kind that docs/adapters.md lists"
DORA = "dora"
SCALED = (LORA, LOHA, LOKR, GLORA)
"""Kinds whose modules have an alpha, and may have a magnitude."""
WHOLE: tuple[str, ...] = ("weight", "bias")
"""The parts of a module that peft may have trained whole, beside its adapter."""
AGAIN = "fetch it again"
Settings = Mapping[str, Any]


def read(file: Container, skeleton: Skeleton, trigger: str | None) -> Adapter | None:
    """Turn a file of LoRA's kinds into updates; None if it is not one.

    Alpha is the file's own (kohya's `.alpha`, the header's configuration, or peft's adapter_config.json beside it).
    Without one, alpha equals the rank, as diffusers assumes.

    Raises:
        InputError: a key or module that is unknown or cannot be placed with all of its rows, a missing half, a shape
            that does not fit; or the file is of a kind that is not read.
    """
    if not is_lora_like(file.entries):
        return None
    where = str(file.path)
    if unread := unread_kind(file.entries):
        raise InputError(where, f"{unread[0]} belongs to {unread[1]}, which raymap does not read", PLAIN)
    modules = _modules(file)
    alone = [own for own in modules.values() if own.parts.keys() <= SCALING]
    modules = {name: own for name, own in modules.items() if not own.parts.keys() <= SCALING}
    settings = _settings(file)
    saved, kinds = _kinds(modules, settings, where)
    notes = _notes(alone, {name: modules[name] for name, kind in kinds.items() if kind in SCALED}, where)
    extents = {name: _extent(own, kinds.get(name), where) for name, own in modules.items()}
    hint = file.path.parent.name if file.path.parent.name in skeleton.parts.adapted else None
    places, left = place(extents, skeleton, hint)
    if left:
        raise MisfitError(where, f"{modules[left[0]].key}: the base has no such module")
    updates: dict[str, Update] = {}
    for name, own in modules.items():
        _put(updates, _updates(own, kinds.get(name), name, places[name], skeleton, settings, where), own.key, where)
        _put(updates, _saved(saved.get(name, {}), places[name], skeleton, own.key, where), own.key, where)
    if OFT in kinds.values() and not settings:
        notes += ("no configuration says how its OFT was trained; peft's usual series of 5 terms is taken",)
    return Adapter(updates, kind=_named(kinds, updates), notes=notes)


def _modules(file: Container) -> dict[str, Module]:
    """Return the parts of each module, by the module's name as the file spells it."""
    modules: dict[str, Module] = {}
    for key, value in file.entries.items():
        if not isinstance(value, torch.Tensor):
            raise InputError(str(file.path), f"{key} is not a tensor", AGAIN)
        read_key = part_of(key)
        if read_key is None:
            raise MisfitError(str(file.path), f"holds the unknown key {key!r}")
        name, part = read_key
        own = modules.setdefault(name, Module(key))
        if part in own.parts:
            raise InputError(str(file.path), f"{key} is in it twice, in two layouts", AGAIN)
        own.parts[part] = value
    return modules


def _notes(alone: Sequence[Module], scaled: Mapping[str, Module], where: str) -> tuple[str, ...]:
    """Return what is to be told of scales: those that belong to no module, and modules that have none.

    Args:
        alone: scales whose module has no other part.
        scaled: the modules of kinds that have scales.

    Raises:
        InputError: such a scale may be that of a module that lacks one, so that its update would be another.
    """
    notes = []
    for part, what in (("alpha", "alpha"), ("magnitude", "DoRA magnitude")):
        lacking = [own.key for own in scaled.values() if part not in own.parts]
        if 0 < len(lacking) < len(scaled):
            notes.append(f"{len(lacking)} of its {len(scaled)} modules have no {what}, {lacking[0]} for one")
        for own in alone:
            if part in own.parts and (lacking or part == "magnitude"):
                raise InputError(where, f"{own.key} belongs to no module of the file, and others lack one", AGAIN)
    for own in alone:
        if own.parts.keys() != {"alpha"}:
            raise InputError(where, f"{own.key} belongs to no module of the file", AGAIN)
        notes.append(f"{own.key} belongs to no module of the file and is not used")
    return tuple(notes)


def _kinds(
    modules: Mapping[str, Module], settings: Settings, where: str
) -> tuple[dict[str, dict[str, torch.Tensor]], dict[str, str]]:
    """Return whole weights that peft saved beside the adapter, taken out of the modules, and each module's kind."""
    saved: dict[str, dict[str, torch.Tensor]] = {}
    kinds: dict[str, str] = {}
    for name, own in modules.items():
        if "on_input" not in own.parts:
            whole = {part: own.parts.pop(part) for part in WHOLE if part in own.parts}
            if whole and not settings:
                raise MisfitError(where, f"holds the unknown key {own.key!r}")
            if whole:
                saved[name] = whole
        kind = own.kind
        if kind is None and own.parts:
            raise InputError(where, f"{own.key}: {own.lacking}", AGAIN)
        if kind is not None:
            kinds[name] = kind
            if settings.get("use_dora") and kind == LORA and not own.parts.keys() & {"magnitude", "magnitude_rows"}:
                raise InputError(where, f"{own.key}: its DoRA magnitudes are missing", AGAIN)
    return saved, kinds


def _extent(own: Module, kind: str | None, where: str) -> Extent:
    try:
        return own.extent if kind else ()
    except (ValueError, RuntimeError, IndexError) as error:
        raise MisfitError(where, f"{own.key}: {_line(error)}") from error


def _updates(
    own: Module,
    kind: str | None,
    name: str,
    at: tuple[Place, ...],
    skeleton: Skeleton,
    settings: Settings,
    where: str,
) -> dict[str, Update]:
    """Return the updates of a module of the file, by the names of the weights and biases that they change."""
    if kind is None:
        return {}
    shapes = [skeleton.shapes.get(f"{target.module}.weight") for target in at]
    whole = [shape for shape in shapes if shape is not None]
    shape = (sum(one[0] for one in whole), *whole[0][1:]) if len(whole) == len(at) else None
    has_bias = all(f"{target.module}.bias" in skeleton.shapes for target in at)
    try:
        weight, bias = updates_of(kind, own.parts, shape, has_bias, _scaling(kind, name, at, settings, where))
        found: dict[str, Update] = {}
        for target in at:
            for suffix, update in (("weight", weight), ("bias", bias)):
                if update is not None:
                    split = update if target.rows is None else update.rows(target.rows)
                    found[f"{target.module}.{suffix}"] = split
    except (ValueError, RuntimeError, IndexError) as error:
        raise MisfitError(where, f"{own.key}: {_line(error)}") from error
    for target_name, update in found.items():
        _check(target_name, update, own.key, skeleton, where)
    return found


def _check(target: str, update: Update, key: str, skeleton: Skeleton, where: str) -> None:
    """Check that an update has the shape of its weight, and that it is finite."""
    shape = skeleton.shapes.get(target)
    if shape is None:
        raise MisfitError(where, f"{key}: the base has no {target}")
    if not update.fits(shape):
        own = f"of shape {update.flat} " if isinstance(update, Additive) else ""
        raise MisfitError(where, f"{key}: its update {own}does not fit {target} of shape {tuple(shape)}")
    if not update.bound < torch.finfo(torch.float32).max:
        raise InputError(where, f"{key}: its update overflows", "train or fetch it again")


def _saved(
    parts: Mapping[str, torch.Tensor], at: tuple[Place, ...], skeleton: Skeleton, key: str, where: str
) -> dict[str, Update]:
    """Return the replacements of weights that peft trained whole and saved beside its adapter."""
    if parts and len(at) != 1:
        raise MisfitError(where, f"{key}: the base has this module in several parts")
    found: dict[str, Update] = {f"{at[0].module}.{part}": Replacement(value) for part, value in parts.items()}
    for target, update in found.items():
        _check(target, update, key, skeleton, where)
    return found


def _put(updates: dict[str, Update], found: Mapping[str, Update], key: str, where: str) -> None:
    if twice := updates.keys() & found.keys():
        raise InputError(where, f"{key} changes {min(twice)}, which another key changes too", AGAIN)
    updates |= found


def _named(kinds: Mapping[str, str], updates: Mapping[str, Update]) -> str:
    """Return the community's name of a file's updates: that of most of its modules, whole differences aside."""
    if any(isinstance(update, Decomposed) for update in updates.values()):
        return DORA
    counted = Counter(kind for kind in kinds.values() if kind != FULL)
    return counted.most_common(1)[0][0] if counted else FULL


def _scaling(kind: str, name: str, at: tuple[Place, ...], settings: Settings, where: str) -> Scaling:
    """Return what the configuration says of a module's scale, by the base's name of it or by the file's own."""
    component, _, module = at[0].module.partition(".")
    prefix = f"{component}."
    own = {**settings, **{key.removeprefix(prefix): v for key, v in settings.items() if key.startswith(prefix)}}
    if kind == OFT:
        if own.get("coft"):
            raise InputError(where, "is a constrained OFT, which raymap does not read", PLAIN)
        terms = int(own.get("num_cayley_neumann_terms", 5)) if own.get("use_cayley_neumann", True) else None
        return Scaling(terms=terms)
    names = (module, name.removeprefix("base_model.model."))
    rank = _setting(own, "rank_pattern", ("r",), names)
    alpha = _setting(own, "alpha_pattern", ("lora_alpha", "alpha"), names)
    return Scaling(alpha, int(rank) if rank else None, bool(own.get("use_rslora")))


def _setting(settings: Settings, patterns: str, keys: tuple[str, ...], names: tuple[str, ...]) -> float | None:
    """Return a number of the configuration, by peft's rule: that of the first pattern that ends a module's name."""
    given = settings.get(patterns)
    found = next((settings[key] for key in keys if key in settings), None)
    for pattern, value in given.items() if isinstance(given, dict) else ():
        if any(_ends(pattern, name) for name in names):
            found = value
            break
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None


def _ends(pattern: str, name: str) -> bool:
    try:
        return re.fullmatch(rf"(.*\.)?({pattern})", name) is not None
    except re.error:
        return False


def _settings(file: Container) -> Settings:
    """Return the configuration of an adapter: peft's file beside it, else its own header's."""
    config = config_of(file.path)
    where, what = (str(config), "") if config else (str(file.path), f"its {METADATA} ")
    try:
        settings = json.loads(config.read_bytes() if config else file.metadata.get(METADATA, "{}"))
    except (OSError, ValueError) as error:
        raise InputError(where, f"{what}cannot be read as JSON ({error})", AGAIN) from error
    if not isinstance(settings, dict):
        raise InputError(where, f"{what}is not a JSON object", AGAIN)
    return settings


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
