"""Textual Inversion files: diffusers, A1111/Civitai and kohya layouts -> new tokens."""

from __future__ import annotations

import torch

from raymap.adapters.container import Container
from raymap.adapters.update import Adapter, Token
from raymap.base.families.registry import FAMILIES
from raymap.base.skeleton import Skeleton
from raymap.errors import InputError, MisfitError

INVERSION_FILE = "learned_embeds.safetensors"
ROWS_FILE = "token_embedding.safetensors"
ROWS_KEY = "token_embedding.weight"
"""The key of a whole token embedding, from a training that let other rows drift (`restore_rows: false`)."""
ENCODER_KEYS = {"clip_l", "clip_g", "t5"}
"""The keys of files that hold embeddings of several text encoders, as they were trained for SDXL, SD 3 and FLUX."""
MAX_VECTORS = 75


def read(file: Container, skeleton: Skeleton, trigger: str | None) -> Adapter | None:
    """Turn a Textual Inversion file into tokens; None if it is not one (for any base).

    A file that holds a whole token embedding belongs to an inversion whose training let other rows drift.

    Raises:
        InputError: vectors of another width, no vector, a trigger that is an ordinary token, a file for another base.
    """
    if list(file.entries) == [ROWS_KEY]:
        return Adapter({}, rows=_rows(file, skeleton))
    return Adapter({}, _tokens(file, skeleton, trigger)) if _is_inversion(file) else None


def _is_inversion(file: Container) -> bool:
    keys = file.entries.keys()
    if keys & {"string_to_param", "emb_params"} or keys & ENCODER_KEYS:
        return True
    tensors = all(isinstance(v, torch.Tensor) and v.dim() <= 2 for v in file.entries.values())
    return tensors and 1 <= len(keys) <= 16 and not any(key.endswith((".weight", ".bias")) for key in keys)


def _rows(file: Container, skeleton: Skeleton) -> dict[str, torch.Tensor]:
    rows, encoder = file.entries[ROWS_KEY], skeleton.encoder
    expected = (len(skeleton.vocabulary), skeleton.text_widths[encoder])
    if not isinstance(rows, torch.Tensor) or rows.shape != expected:
        problem = f"is not a token embedding of shape {expected}"
        raise MisfitError(str(file.path), problem)
    return {encoder: rows}


def _tokens(file: Container, skeleton: Skeleton, trigger: str | None) -> tuple[Token, ...]:
    """Return the tokens of a file.

    Their trigger is the one given, else the file's own: diffusers' key, A1111's name; kohya keeps none, so that it is
    the file's name, as in A1111's interface.
    """
    entries = file.entries
    if entries.keys() & ENCODER_KEYS:
        return (_of_encoders(trigger or file.path.stem, file, skeleton),)
    if "string_to_param" in entries:
        vectors = entries["string_to_param"]
        if not isinstance(vectors, dict) or len(vectors) != 1:
            raise InputError(str(file.path), "string_to_param does not hold exactly one embedding", "fetch it again")
        named = {str(entries.get("name") or file.path.stem): next(iter(vectors.values()))}
    elif "emb_params" in entries:
        named = {file.path.stem: entries["emb_params"]}
    else:
        named = dict(entries)
    if trigger is not None and len(named) == 1:
        named = {trigger: next(iter(named.values()))}
    return tuple(token(name, value, file, skeleton) for name, value in named.items())


def _of_encoders(trigger: str, file: Container, skeleton: Skeleton) -> Token:
    """Return the token of a file that names the text encoder of each embedding (`clip_l`, `clip_g`, `t5`)."""
    where, family = str(file.path), skeleton.family
    if extra := file.entries.keys() - ENCODER_KEYS:
        raise InputError(where, f"holds {min(extra)!r} beside embeddings of text encoders", "fetch it again")
    places = {key: family.inversions.get(key) for key in file.entries}
    missing = sorted(key for key, encoder in places.items() if encoder not in skeleton.parts.encoders)
    if missing:
        kinds = " or ".join(kind.title for kind in FAMILIES.values() if kind.inversions.keys() == places.keys())
        of = f"for {kinds} ({', '.join(sorted(places))})" if kinds else f"of {' and '.join(sorted(places))}"
        problem = f"is a Textual Inversion {of}, and the base is {family.title}"
        raise MisfitError(where, problem)
    parts = [token(trigger, value, file, skeleton, places[key]) for key, value in file.entries.items()]
    learned = Token(trigger, {encoder: vectors for part in parts for encoder, vectors in part.vectors.items()})
    if len({len(vectors) for vectors in learned.vectors.values()}) > 1:
        raise InputError(where, "has another number of vectors for each text encoder", "train or fetch it again")
    return learned


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
        raise InputError(where, problem, "give another with `trigger:`")
    learned = Token(trigger, {fitting[0]: vectors})
    vocabulary = skeleton.vocabulary_of(fitting[0])
    if taken := [name for name in learned.names if name in vocabulary]:
        problem = f"its trigger {taken[0]!r} is an ordinary token of the base"
        raise InputError(where, problem, "give another with `trigger:`")
    return learned
