"""Where reference images come from and on what terms: `card.json` beside them, and its copy in adapters' cards."""

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
    """One image: the SHA-256 of its file, and, if known, where it is from and whose it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    url: str | None = None
    source: str | None = None
    credit: str | None = None


class Provenance(BaseModel):
    """The card of a folder of references: terms that hold for all its images, and the origin of each file by name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    licence: str | None = None
    consent: str | None = None
    redistribution: str | None = None
    cite: tuple[str, ...] = ()
    files: dict[str, Origin]


def read_provenance(folder: Path) -> Provenance | None:
    """Return the card of a folder of references; None if there is none.

    Raises:
        InputError: the card cannot be read.
    """
    path = folder / REFERENCES_CARD
    try:
        return Provenance.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (ValidationError, OSError) as error:
        problem = f"is not a card of references ({' '.join(str(error).split())})"
        raise InputError(str(path), problem, "correct it (docs/subjects.md), or fetch the subject again") from error


def check_origin(path: Path, sha256: str) -> None:
    """Check that the card beside a reference, if there is one, describes that very file.

    Raises:
        InputError: it does not, so that its terms are those of other images.
    """
    provenance = read_provenance(path.parent)
    if provenance is None:
        return
    card = path.parent / REFERENCES_CARD
    if path.name not in provenance.files:
        raise InputError(str(path), f"is not listed in {card}", "add it there, or move it to another folder")
    if provenance.files[path.name].sha256 != sha256:
        raise InputError(str(path), f"is not the image that {card} describes", "correct the card, or fetch it again")


def stated_terms(references: Sequence[Path]) -> dict[str, Any]:
    """Return what the cards beside references state, as an adapter's card holds it: null if there is no card.

    Different statements of several folders are joined by `; `; a folder that makes none counts as `unknown`.
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
    """Return the different statements, joined by `; `; None if none is made."""
    said = list(statements)
    return "; ".join(dict.fromkeys(text or UNKNOWN for text in said)) if any(said) else None
