"""Adapter folders: weights in their community format and an `adapter.json` that says what they are."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raymap.diffusion.adapters import LORA_FILE
from raymap.errors import InputError
from raymap.plan import AdapterInfo
from raymap.store.folder import as_json, write_atomically
from raymap.study import LoraRecipe, Study, Subject

CARD = "adapter.json"
CONTROL = "identity"


@dataclass(frozen=True)
class AdapterOrder:
    """An adapter that a study wants trained; `subject` is None for the identity control (B = 0)."""

    name: str
    method: str
    recipe: LoraRecipe
    base_sha256: str
    subject: Subject | None = None
    reference_sha256: tuple[tuple[str, str], ...] = ()

    @property
    def digest(self) -> str:
        """SHA-256 over everything that decides the weights."""
        asked = {
            "method": self.method,
            "recipe": self.recipe.model_dump(),
            "prompt": self.recipe.instance_prompt(self.subject) if self.subject else None,
            "references": self.reference_sha256,
            "base": self.base_sha256,
        }
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()

    def card(self, weights: Path, losses: list[tuple[int, float]]) -> dict[str, Any]:
        """Return what adapter.json holds."""
        return {
            "name": self.name,
            "method": self.method,
            "subject": self.subject.name if self.subject else CONTROL,
            "subject_category": self.subject.category if self.subject else "control",
            "class_word": self.subject.class_word if self.subject else None,
            "instance_prompt": self.recipe.instance_prompt(self.subject) if self.subject else None,
            "base_sha256": self.base_sha256,
            "sha256": file_digest(weights),
            "training_digest": self.digest,
            "recipe": self.recipe.model_dump(),
            "references": dict(self.reference_sha256),
            "losses": losses,
        }


def orders(study: Study, base_sha256: str, references: dict[str, dict[str, str]]) -> tuple[AdapterOrder, ...]:
    """Return the adapters a study wants trained: every subject by every method, then the identity control.

    Args:
        references: subject name -> file name -> SHA-256, as `check_references` returns them.
    """
    wanted = []
    recipe = study.methods.lora
    for subject in study.subjects:
        if recipe is None:
            break
        digests = tuple(references[subject.name].items())
        wanted.append(AdapterOrder(f"{subject.name}-lora", "lora", recipe, base_sha256, subject, digests))
    if study.identity_control:
        wanted.append(AdapterOrder(f"{CONTROL}-lora", CONTROL, recipe or LoraRecipe(), base_sha256))
    return tuple(wanted)


def file_digest(path: Path) -> str:
    """Return a file's SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_card(folder: Path, card: dict[str, Any]) -> None:
    """Write adapter.json: the last step of a training, so an adapter without one is not there."""
    write_atomically(folder / CARD, as_json(card))


def read_adapter(folder: Path, base_sha256: str) -> tuple[AdapterInfo, dict[str, Any]]:
    """Read an adapter folder and check that its weights are what the card says and were trained for this base.

    Raises:
        InputError: naming the folder and what does not hold.
    """
    path = folder / CARD
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        info = AdapterInfo(card["name"], card["method"], card["subject"], card["subject_category"], card["sha256"])
        trained_for = card["base_sha256"]
    except FileNotFoundError as error:
        raise InputError(str(folder), f"has no {CARD}", "give a folder that raymap trained") from error
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise InputError(str(path), f"is no adapter card ({error!r})", "train the adapter again") from error
    if trained_for != base_sha256:
        problem = f"was trained for another base ({trained_for[:12]}…, this one is {base_sha256[:12]}…)"
        raise InputError(str(folder), problem, "use its base or train it again")
    weights = folder / LORA_FILE
    if not weights.is_file() or file_digest(weights) != info.sha256:
        raise InputError(str(weights), f"is not the file that {CARD} describes", "train or fetch it again")
    return info, card


def is_trained(folder: Path, order: AdapterOrder) -> bool:
    """Return whether the folder already holds what the order asks for.

    Raises:
        InputError: when it holds an adapter of that name, differently trained.
    """
    if not (folder / CARD).exists():
        return False
    _, card = read_adapter(folder, order.base_sha256)
    if card.get("training_digest") != order.digest:
        raise InputError(str(folder), "was trained with other settings", "delete it or give another --output")
    return True


def info_of(order: AdapterOrder, folder: Path) -> AdapterInfo:
    """Return a trained order as a run knows it."""
    info, _ = read_adapter(folder, order.base_sha256)
    return info
