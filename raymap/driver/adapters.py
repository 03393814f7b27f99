"""A run's adapters: those that are still to be trained are trained, those of others are copied into the run folder."""

from __future__ import annotations

import time
from pathlib import Path

from raymap.adapters.card import CARD, read_card, write_card
from raymap.base import folder as bases
from raymap.display.progress import Progress
from raymap.driver.prepare import Found, Prepared
from raymap.errors import InputError
from raymap.personalize.orders import AdapterOrder, is_trained, together
from raymap.store.files import write_atomically
from raymap.store.folder import RunFolder


def untrained_orders(prepared: Prepared, folder: RunFolder) -> tuple[AdapterOrder, ...]:
    return tuple(order for order in prepared.orders if not is_trained(folder.adapter(order.name), order))


def bring(found: Found, target: Path, base_sha256: str) -> None:
    """Copy an adapter into the run folder, the card last."""
    if (target / CARD).exists():
        held, card = read_card(target, base_sha256)
        called = ("token", "phrase")
        if held != found.info or [card.get(key) for key in called] != [found.card.get(key) for key in called]:
            problem = f"is not the adapter {found.files[0]} as the study names it"
            raise InputError(str(target), problem, "give another --output")
    else:
        for path in found.files:
            write_atomically(target / path.name, path.read_bytes())
        write_card(target, found.card)


def train_missing(
    prepared: Prepared, untrained: tuple[AdapterOrder, ...], folder: RunFolder, progress: Progress
) -> float:
    """Train every group of orders in which one is missing, whole: when a run was broken off changes no bit."""
    from raymap.cluster import launch, training

    start = time.perf_counter()
    resources = prepared.study.resources
    groups = tuple(g for g in together(prepared.orders, resources.train_together) if set(g) & set(untrained))
    steps = sum(order.steps for group in groups for order in group)
    progress.phase(f"training {len(untrained)} adapters", steps, "steps")
    base = bases.pinned(prepared.study.base)
    training.train_all(groups, folder, lambda: launch.start_trainer(base, resources), resources.workers.max, progress)
    return round(time.perf_counter() - start, 1)
