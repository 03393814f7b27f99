"""Textual Inversion: files of learned tokens, and tokens bundled with other adapters, in every community's layout.

A file is one because it says so, never because it is small: by the keys of its layout, by a trigger in angle brackets,
by the name that diffusers gives such files, or by its header. A vector that nothing calls a token is left to others.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch

from raymap.adapters.container import Container
from raymap.adapters.update import Adapter, Token
from raymap.base.families.registry import FAMILIES
from raymap.base.file_kinds import ENCODER_KEYS, names_tokens
from raymap.base.skeleton import Skeleton
from raymap.errors import InputError, MisfitError

INVERSION_FILE = "learned_embeds.safetensors"
ROWS_FILE = "token_embedding.safetensors"
ROWS_KEY = "token_embedding.weight"
"""The key of a whole token embedding, from a training that let other rows drift (`restore_rows: false`)."""
SINGLE_KEYS = ("emb_params", "emp_params")
"""The keys of files of one text encoder: kohya's, and OneTrainer's, which is misspelt."""
SPELT = {"t5xxl": "t5"}
"""Other names for a text encoder than those of `Family.inversions`."""
PARAMETERS = "string_to_param"
"""The key of A1111's files, whose vectors are one level deeper."""
OUTPUT = "_out"
"""How the keys of vectors end that OneTrainer puts into a text encoder's output."""
BUNDLE = re.compile(r"bundle_emb\.(?P<trigger>.+)\.(?P<key>[^.]+)", re.DOTALL)
MAX_VECTORS = 75
RENAME = "give another (--trigger, or `trigger:` in a study)"


@dataclass(frozen=True)
class Learned:
    """A learned token as its file has it: vectors by the file's key of their text encoder, empty where it has none."""

    trigger: str
    vectors: Mapping[str, object]
    note: str = ""


def read(file: Container, skeleton: Skeleton, trigger: str | None) -> Adapter | None:
    """Turn a Textual Inversion file into tokens; None if it does not say that it is one.

    A file that holds a whole token embedding belongs to an inversion whose training let other rows drift.

    Raises:
        InputError: vectors of another width, no vector, a trigger that is an ordinary token, a file for another base, a
            key that is not one of its layout's.
    """
    if list(file.entries) == [ROWS_KEY]:
        return Adapter({}, rows=_rows(file, skeleton))
    learned = _of_layout(file) or _of_names(file, trigger)
    return adapter_of(learned, file, skeleton, trigger) if learned else None


def without_bundle(file: Container) -> tuple[Container, list[Learned]]:
    """Return a file without the tokens that are bundled with it (`bundle_emb.…`), and these tokens.

    OneTrainer and A1111 keep the embeddings that were trained together with a LoRA in the LoRA's own file.

    Raises:
        InputError: a key of the bundle that is not understood.
    """
    keys = [key for key in file.entries if key.startswith("bundle_emb")]
    if not keys:
        return file, []
    bundled: dict[str, dict[str, object]] = {}
    for key in keys:
        match = BUNDLE.fullmatch(key.replace(f".{PARAMETERS}.*", f".{PARAMETERS}"))
        if match is None:
            raise InputError(str(file.path), f"holds the unknown key {key!r}", "fetch it again")
        bundled.setdefault(match["trigger"], {})[match["key"]] = file.entries[key]
    learned = []
    for name, vectors in bundled.items():
        _check_keys(vectors, (*ENCODER_KEYS, *SINGLE_KEYS, PARAMETERS), file)
        learned.append(
            Learned(name, {"" if key in (*SINGLE_KEYS, PARAMETERS) else key: v for key, v in vectors.items()})
        )
    rest = {key: value for key, value in file.entries.items() if key not in keys}
    return replace(file, entries=rest), learned


def adapter_of(learned: Iterable[Learned], file: Container, skeleton: Skeleton, trigger: str | None) -> Adapter:
    """Return the adapter of learned tokens.

    Args:
        trigger: renames the token, if there is exactly one.

    Raises:
        InputError: as `read`.
    """
    named = list(learned)
    if trigger is not None and len(named) == 1:
        named = [replace(named[0], trigger=trigger, note="")]
    tokens = tuple(_placed(one, file, skeleton) for one in named)
    return Adapter({}, tokens, notes=tuple(one.note for one in named if one.note))


def _rows(file: Container, skeleton: Skeleton) -> dict[str, torch.Tensor]:
    rows, encoder = file.entries[ROWS_KEY], skeleton.encoder
    expected = (len(skeleton.vocabulary), skeleton.text_widths[encoder])
    if not isinstance(rows, torch.Tensor) or rows.shape != expected:
        problem = f"is not a token embedding of shape {expected}"
        raise MisfitError(str(file.path), problem)
    return {encoder: rows}


def _of_layout(file: Container) -> list[Learned]:
    """Return the token of a layout whose keys tell it; such files do not hold their trigger, which is their name.

    A1111's hold a name too, which only diffusers goes by.
    """
    entries, name = file.entries, file.path.stem
    if PARAMETERS in entries:
        vectors, inner = entries[PARAMETERS], str(entries.get("name") or name)
        if not isinstance(vectors, dict) or len(vectors) != 1:
            raise InputError(str(file.path), f"{PARAMETERS} does not hold exactly one embedding", "fetch it again")
        _check_keys({name.partition(".")[0] for name in file.header.shapes} - {"string_to_token"}, (PARAMETERS,), file)
        note = f"its trigger is the file's name, as in A1111 and ComfyUI; diffusers goes by the name inside, {inner!r}"
        return [Learned(name, {"": next(iter(vectors.values()))}, note if inner != name else "")]
    told = {key for key in entries if key.removesuffix(OUTPUT) in (*ENCODER_KEYS, *SINGLE_KEYS)}
    if not told:
        return []
    _check_keys(entries, ENCODER_KEYS if told & set(ENCODER_KEYS) else SINGLE_KEYS, file)
    if len(told & set(SINGLE_KEYS)) > 1:
        raise InputError(str(file.path), f"holds both {' and '.join(SINGLE_KEYS)}", "fetch it again")
    return [Learned(name, {"" if key in SINGLE_KEYS else key: value for key, value in entries.items()})]


def _of_names(file: Container, trigger: str | None) -> list[Learned]:
    """Return the tokens of diffusers' layout, whose keys are the triggers, where something says that they are."""
    values = file.entries
    if not all(isinstance(value, torch.Tensor) for value in values.values()):
        return []
    alone = len(values) == 1 and trigger is not None and "." not in next(iter(values))
    strange = [key for key in values if not re.fullmatch(r"<.+>", key, re.DOTALL)]
    if strange and not (alone or names_tokens(file.header, file.path)):
        if len(strange) == len(values):
            return []
        problem = f"holds {strange[0]!r} beside learned tokens, and nothing says that it is one"
        raise InputError(str(file.path), problem, "fetch it again")
    return [Learned(key, {"": value}) for key, value in values.items()]


def _check_keys(keys: Iterable[str], known: tuple[str, ...], file: Container) -> None:
    for key in keys:
        if key.endswith(OUTPUT) and key.removesuffix(OUTPUT) in known:
            problem = f"holds {key!r}, vectors for a text encoder's output, which raymap does not apply"
            raise InputError(str(file.path), problem, "give an embedding that was trained without output vectors")
        if key not in known:
            raise InputError(str(file.path), f"holds {key!r} beside learned tokens", "fetch it again")


def _placed(learned: Learned, file: Container, skeleton: Skeleton) -> Token:
    """Return a token with its vectors by the base's text encoders."""
    where, family = str(file.path), skeleton.family
    keys = {SPELT.get(key, key): value for key, value in learned.vectors.items()}
    if "" in keys and len(keys) > 1:
        raise InputError(where, f"has vectors of two layouts for {learned.trigger!r}", "fetch it again")
    # Where files of a family name no text encoder, it has one, and a single key can only mean that.
    own = family.inversions or dict.fromkeys(keys, skeleton.encoder)
    twice = len(keys) > 1 and not family.inversions
    if "" not in keys and (twice or any(own.get(key) not in skeleton.parts.encoders for key in keys)):
        kinds = " or ".join(kind.title for kind in FAMILIES.values() if kind.inversions.keys() == keys.keys())
        of = f"for {kinds} ({', '.join(sorted(keys))})" if kinds else f"of {' and '.join(sorted(keys))}"
        raise MisfitError(where, f"is a Textual Inversion {of}, and the base is {family.title}")
    parts = [token(learned.trigger, value, file, skeleton, own[key] if key else None) for key, value in keys.items()]
    placed = Token(learned.trigger, {encoder: vectors for part in parts for encoder, vectors in part.vectors.items()})
    if len({len(vectors) for vectors in placed.vectors.values()}) > 1:
        raise InputError(where, "has another number of vectors for each text encoder", "train or fetch it again")
    return placed


def token(trigger: str, value: object, file: Container, skeleton: Skeleton, encoder: str | None = None) -> Token:
    """Return one learned token, checked.

    Args:
        encoder: the text encoder whose token it is; without it, the one whose embeddings are as wide.

    Raises:
        InputError: as `read`.
    """
    where = str(file.path)
    if not isinstance(value, torch.Tensor) or value.dim() not in (1, 2):
        raise InputError(where, f"{trigger!r} is not an embedding", "give a Textual Inversion of one text encoder")
    vectors = value.reshape(-1, value.shape[-1]) if value.numel() else value
    widths = skeleton.text_widths if encoder is None else {encoder: skeleton.text_widths[encoder]}
    fitting = [name for name, width in widths.items() if width == value.shape[-1]]
    if not 1 <= len(vectors) <= MAX_VECTORS or not fitting:
        wide = " and ".join(str(width) for width in widths.values())
        problem = f"{trigger!r} has shape {tuple(value.shape)}; the base's embeddings are {wide} wide"
        raise MisfitError(where, problem)
    if not trigger.strip() or trigger != trigger.strip():
        problem = f"its trigger {trigger!r} is blank or has blanks around it"
        raise InputError(where, problem, RENAME)
    learned = Token(trigger, {fitting[0]: vectors})
    vocabulary = skeleton.vocabulary_of(fitting[0])
    if taken := [name for name in learned.names if name in vocabulary]:
        problem = f"its trigger {taken[0]!r} is an ordinary token of the base"
        raise InputError(where, problem, f"{RENAME}, or rename the file if that is where it comes from")
    return learned
