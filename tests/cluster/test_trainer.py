"""The trainer under Ray: a lost one is replaced, a failed training takes no other with it, folders appear whole."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from PIL import Image

from raymap.actors.trainer import Trainer
from raymap.adapters.card import CARD
from raymap.adapters.lora import LORA_FILE
from raymap.adapters.read import read_adapter
from raymap.base.skeleton import skeleton_of
from raymap.cluster import launch, training
from raymap.display.progress import Progress
from raymap.embedded.model import PIPELINE
from raymap.embedded.world.subjects import CAPTAIN, STAR_CUP
from raymap.errors import DrawingError, IncompleteRunError
from raymap.personalize import training as fitting
from raymap.personalize.orders import AdapterOrder, orders
from raymap.store.folder import RunFolder
from raymap.store.lock import locked
from raymap.study.file import build_study
from raymap.study.model import Resources

RESOURCES = Resources()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[AdapterOrder, ...]:
    """A LoRA of the star cup and one of the captain, each a few steps longer than to the first checkpoint."""
    folder = tmp_path_factory.mktemp("references")
    subjects = [
        {
            "name": subject.name,
            "category": subject.category,
            "class_word": subject.class_word,
            "references": [str(p) for p in subject.write_references(folder / subject.name, n=2)],
        }
        for subject in (STAR_CUP, CAPTAIN)
    ]
    raw = {
        "name": "s",
        "seeds": 2,
        "prompts": {"scenes": ["a city at night"]},
        "methods": {"lora": {"steps": 104, "learning_rate": 1e-3, "targets": ["to_v"]}},
        "identity_control": False,
        "subjects": subjects,
    }
    return orders(build_study(raw, "test", folder), "0" * 64, {"star-cup": {}, "captain": {}})


@pytest.fixture(scope="module")
def running() -> Iterator[None]:
    with launch.runtime(RESOURCES):
        yield


def train(groups: tuple[tuple[AdapterOrder, ...], ...], folder: RunFolder, start: Callable[[], Any]) -> None:
    with locked(folder.root):
        training.train_all(groups, folder, start, 1, Progress())


def test_a_lost_trainer_is_replaced_and_the_adapter_is_the_same_bits(
    running: None, pair: tuple[AdapterOrder, ...], tmp_path: Path
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
    running: None, pair: tuple[AdapterOrder, ...], tmp_path: Path
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


def test_a_checkpoint_serves_the_orders_that_left_it_alone(
    pair: tuple[AdapterOrder, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "CHECKPOINT_EVERY", 2)
    monkeypatch.setattr(fitting, "REPORT_EVERY", 1)
    slow, fast = (
        replace(pair[0], recipe=pair[0].recipe.model_copy(update={"steps": 5, "learning_rate": rate}))
        for rate in (1e-4, 1e-2)
    )
    trainer = Trainer(PIPELINE, 1, "cpu")

    def trained(order: AdapterOrder, name: str, reports: int | None = None) -> bytes:
        list(islice(trainer.train((order,), (tmp_path / name,), tmp_path / "scratch"), reports))
        return b"" if reports else (tmp_path / name / LORA_FILE).read_bytes()

    trained(slow, "broken off", reports=4)
    assert list((tmp_path / "scratch").glob("*.pt"))
    after = trained(fast, "after")
    trainer.pipeline.vae.register_to_config(sample_size=32)  # some decoders name another size than the base draws
    assert after == trained(fast, "alone")
    trained(slow, "broken off", reports=4)
    assert trained(slow, "whole") == trained(slow, "in one go")


class Spoiling(Trainer):
    """A trainer to which the star cup's references come as NaN."""

    def _images(self, order: AdapterOrder) -> np.ndarray | None:
        images = super()._images(order)
        assert images is not None
        return np.full(images.shape, np.nan) if "star-cup" in order.name else images


def test_a_subject_that_ends_in_nan_takes_no_other_of_its_batch_with_it(
    pair: tuple[AdapterOrder, ...], tmp_path: Path
) -> None:
    orders = tuple(replace(o, recipe=o.recipe.model_copy(update={"steps": 3})) for o in pair)
    folders = tuple(tmp_path / order.name for order in orders)
    with pytest.raises(DrawingError, match=r"^star-cup-lora: .*finite"):
        list(Spoiling(PIPELINE, 1, "cpu").train(orders, folders, tmp_path / "scratch"))
    assert [folder.exists() for folder in folders] == [False, True]
    assert len(json.loads((folders[1] / CARD).read_text())["losses"]) == 1
    read_adapter(folders[1], skeleton_of(PIPELINE))
    assert not (tmp_path / "scratch").exists()
