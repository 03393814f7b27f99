"""What a study wants trained: one order an adapter, and whether a folder already holds it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raymap.adapters.folder import CARD, read_card, weights_digest
from raymap.errors import InputError
from raymap.plan import AdapterInfo
from raymap.study import LoraRecipe, Study, Subject

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
            "sha256": weights_digest([weights]),
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


def is_trained(folder: Path, order: AdapterOrder) -> bool:
    """Return whether the folder already holds what the order asks for.

    Raises:
        InputError: when it holds an adapter of that name, differently trained.
    """
    if not (folder / CARD).exists():
        return False
    _, card = read_card(folder, order.base_sha256)
    if card.get("training_digest") != order.digest:
        raise InputError(str(folder), "was trained with other settings", "delete it or give another --output")
    return True


def info_of(order: AdapterOrder, folder: Path) -> AdapterInfo:
    """Return a trained order as a run knows it."""
    info, _ = read_card(folder, order.base_sha256)
    return info
