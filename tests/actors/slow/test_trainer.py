"""The trainer: a checkpoint serves the orders that left it alone, and a spoilt training takes no other with it."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from raymap.actors.trainer import Trainer
from raymap.adapters.card import CARD
from raymap.adapters.lora import LORA_FILE
from raymap.adapters.read import read_adapter
from raymap.base.model import Base
from raymap.embedded.model import PIPELINE
from raymap.errors import DrawingError
from raymap.personalize import training as fitting
from raymap.personalize.orders import AdapterOrder
from tests.orders import pair_of_orders


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[AdapterOrder, ...]:
    return pair_of_orders(tmp_path_factory.mktemp("references"))


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
    read_adapter(folders[1], Base.at(PIPELINE).skeleton)
    assert not (tmp_path / "scratch").exists()
