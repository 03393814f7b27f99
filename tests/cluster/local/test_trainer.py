"""The trainer under Ray: a lost one is replaced, a failed training takes no other with it, folders appear whole."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
from PIL import Image

from raymap.actors.trainer import Trainer
from raymap.adapters.card import CARD
from raymap.cluster import launch, training
from raymap.display.progress import Progress
from raymap.embedded.model import PIPELINE
from raymap.errors import IncompleteRunError
from raymap.personalize.orders import AdapterOrder
from raymap.store.folder import RunFolder
from raymap.store.lock import locked
from raymap.study.model import Resources
from tests.orders import pair_of_orders

RESOURCES = Resources()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[AdapterOrder, ...]:
    return pair_of_orders(tmp_path_factory.mktemp("references"))


def train(groups: tuple[tuple[AdapterOrder, ...], ...], folder: RunFolder, start: Callable[[], Any]) -> None:
    with locked(folder.root):
        training.train_all(groups, folder, start, 1, Progress())


def test_a_lost_trainer_is_replaced_and_the_adapter_is_the_same_bits(
    local_ray: None, pair: tuple[AdapterOrder, ...], tmp_path: Path
) -> None:
    order = pair[0]
    folder, undisturbed = RunFolder(tmp_path / "run"), tmp_path / "undisturbed"
    steps = list(Trainer(PIPELINE, 1, "cpu").train((order,), (undisturbed,), tmp_path / "scratch"))
    assert not (tmp_path / "scratch").exists()
    started: list[Any] = []
    scratch = folder.training(order.name)

    def kill() -> None:
        while not list(scratch.glob("*.pt")):
            time.sleep(0.02)
        ray.kill(started[0])

    def start() -> Any:
        started.append(launch.start_trainer(PIPELINE, RESOURCES))
        if len(started) == 1:
            threading.Thread(target=kill, daemon=True).start()
        return started[-1]

    train(((order,),), folder, start)
    assert len(started) == 2
    assert not list((tmp_path / "run" / "training").iterdir())
    card = json.loads((folder.adapter(order.name) / CARD).read_text())
    assert card == json.loads((undisturbed / CARD).read_text())
    assert card["losses"] == [[step.done, step.losses[0]] for step in steps]
    for name in [*card["files"], "samples.png"]:
        assert (folder.adapter(order.name) / name).read_bytes() == (undisturbed / name).read_bytes()
    with Image.open(folder.adapter(order.name) / "losses.png") as curve:
        assert curve.size == (500, 300)


def test_a_failed_training_takes_no_other_with_it(
    local_ray: None, pair: tuple[AdapterOrder, ...], tmp_path: Path
) -> None:
    good, bad = (
        replace(order, recipe=order.recipe.model_copy(update={"steps": 10, "learning_rate": rate}))
        for order, rate in zip(pair, (1e-3, 1e30), strict=True)
    )
    folder = RunFolder(tmp_path)
    with pytest.raises(IncompleteRunError, match=r"captain-lora.*finite"):
        train(((bad,), (good,)), folder, lambda: launch.start_trainer(PIPELINE, RESOURCES))
    assert (folder.adapter(good.name) / CARD).exists()
    assert not folder.adapter(bad.name).exists()
