"""Where reference pictures come from and on what terms: `card.json` beside them, carried on into adapters' cards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from raymap.errors import InputError

REFERENCES_CARD = "card.json"
UNKNOWN = "unknown"
TERMS = ("licence", "consent", "redistribution")


class Origin(BaseModel):
    """One picture: the SHA-256 of its file, and, where it is known, where it is from and whose it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    url: str | None = None
    source: str | None = None
    credit: str | None = None


class Provenance(BaseModel):
    """What the card of a folder of references says: terms that hold for all its pictures, and each picture by name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    licence: str | None = None
    consent: str | None = None
    redistribution: str | None = None
    cite: tuple[str, ...] = ()
    files: dict[str, Origin]


def read_provenance(folder: Path) -> Provenance | None:
    """Return what the card beside references says, None where there is no card.

    Raises:
        InputError: a card that cannot be read.
    """
    path = folder / REFERENCES_CARD
    try:
        return Provenance.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (ValidationError, OSError) as error:
        problem = f"is no card of references ({' '.join(str(error).split())})"
        raise InputError(str(path), problem, "correct it (docs/subjects.md), or fetch the subject again") from error


def check_origin(path: Path, sha256: str) -> None:
    """Check that a reference is one of those that the card beside it speaks of, if there is one.

    Raises:
        InputError: its terms would be taken for another picture's.
    """
    provenance = read_provenance(path.parent)
    if provenance is None:
        return
    card = path.parent / REFERENCES_CARD
    if path.name not in provenance.files:
        raise InputError(str(path), f"does not stand in {card}", "add it there, or move it to another folder")
    if provenance.files[path.name].sha256 != sha256:
        raise InputError(str(path), f"is not the picture that {card} describes", "correct the card, or fetch it again")


def stated_terms(references: Sequence[Path]) -> dict[str, Any]:
    """Return what the cards beside references state, as an adapter's card holds it: null where no card is.

    Of several folders each statement is given once, joined by `; `; a folder without one counts as `unknown`.
    """
    names: dict[Path, list[str]] = {}
    for path in references:
        names.setdefault(path.parent, []).append(path.name)
    cards = {folder: read_provenance(folder) for folder in names}
    origins = [card.files[name] for folder, card in cards.items() if card for name in names[folder]]
    cited = [work for card in cards.values() if card for work in card.cite]
    return {
        **{term: joined(getattr(card, term, None) for card in cards.values()) for term in TERMS},
        "sources": list(dict.fromkeys(origin.source for origin in origins if origin.source)),
        "cite": list(dict.fromkeys(cited)),
    }


def joined(statements: Iterable[str | None]) -> str | None:
    """Return different statements one after the other, None if there is none at all."""
    said = list(statements)
    return "; ".join(dict.fromkeys(text or UNKNOWN for text in said)) if any(said) else None
