"""Judges images beside CLIP and LPIPS: pixels go in, rows of schema JUDGED come out."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

from raymap.errors import DrawingError
from raymap.plan.blocks import BASE, Block, Item
from raymap.scoring.judges import judge_infos, load_judge
from raymap.store.schema import DECLARED, JUDGED, stamped


class Judges:
    """A study's judges beside CLIP and LPIPS, loaded on one type of device.

    Every method raises DrawingError where a judge does not return one finite number per image or pair, and RuntimeError
    where a judge breaks; both name the judge.
    """

    def __init__(self, names: tuple[str, ...], device: str, digest: str) -> None:
        infos = judge_infos(names)
        judges = {info: load_judge(info.name, device) for info in infos}
        self._pair: dict[str, Any] = {info.name: judge for info, judge in judges.items() if info.kind == "pair"}
        self._prompt: dict[str, Any] = {info.name: judge for info, judge in judges.items() if info.kind == "prompt"}
        stamp = stamped(JUDGED, digest)
        self._schema = stamp.with_metadata({**stamp.metadata, DECLARED: json.dumps([asdict(info) for info in infos])})

    def scores(self, items: tuple[Item, ...], pixels: np.ndarray) -> dict[str, np.ndarray]:
        """Return each prompt judge's scores of images, float32 (N,), by the judge's name."""
        prompts = [item.prompt for item in items]
        return {
            name: _numbers(name, len(pixels), judge.scores, prompts, pixels) for name, judge in self._prompt.items()
        }

    def compare_seeds(self, block: Block, pixels: np.ndarray, scores: dict[str, np.ndarray]) -> pa.Table:
        """Return one row per judge and pair of base seeds of a block: what re-seeding alone does.

        Args:
            pixels: the block's base images; `scores` are the prompt judges' of them.
        """
        first, second = np.array(block.pairs, dtype=np.int64).reshape(-1, 2).T
        keys: dict[str, list[Any]] = {
            "adapter": [BASE] * len(first),
            "prompt_id": [block.items[k].prompt_id for k in first],
            "seed": [block.items[k].seed for k in first],
            "seed_b": [block.items[k].seed for k in second],
        }
        values = {name: {"value_base": own[first], "value_adapted": own[second]} for name, own in scores.items()}
        return self._table(keys, values | self._distances(pixels[first], pixels[second]))

    def compare_adapted(
        self, block: Block, adapter: str, base: np.ndarray, pixels: np.ndarray, scores: dict[str, np.ndarray]
    ) -> pa.Table:
        """Return one row per judge and image of a block under an adapter.

        Args:
            base: the block's base images; `scores` are the prompt judges' of them.
            pixels: the adapted images; none where all are proved to be the base's own: their distances are 0 then, and
                their scores those of the base.
        """
        adapted = self.scores(block.items, pixels) if len(pixels) else scores
        keys: dict[str, list[Any]] = {
            "adapter": [adapter] * len(block.items),
            "prompt_id": [item.prompt_id for item in block.items],
            "seed": [item.seed for item in block.items],
            "seed_b": [None] * len(block.items),
        }
        values = {name: {"value_base": own, "value_adapted": adapted[name]} for name, own in scores.items()}
        if len(pixels):
            return self._table(keys, values | self._distances(base, pixels))
        return self._table(keys, values | {name: {"value": np.zeros(len(base))} for name in self._pair})

    def _distances(self, base: np.ndarray, adapted: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
        return {
            name: {"value": _numbers(name, len(base), judge.distances, base, adapted)}
            for name, judge in self._pair.items()
        }

    def _table(self, keys: dict[str, list[Any]], values: dict[str, dict[str, np.ndarray]]) -> pa.Table:
        """Return rows of schema JUDGED, judge after judge in alphabetical order; columns without a value are null."""
        n = len(keys["seed"])
        tables = []
        for name in sorted(values):
            columns = {**keys, "judge": [name] * n, **values[name]}
            arrays = [pa.array(columns.get(field.name, [None] * n), field.type) for field in self._schema]
            tables.append(pa.table(arrays, schema=self._schema))
        return pa.concat_tables(tables)


def _numbers(name: str, count: int, judge: Callable[..., Any], *given: list[str] | np.ndarray) -> np.ndarray:
    """Return what a judge says of so many images or pairs, float32 (count,)."""
    if not count:
        return np.empty(0, np.float32)
    try:
        values = np.asarray(judge(*map(_read_only, given)), dtype=np.float32)
    except Exception as error:
        raise RuntimeError(f"judge {name}: {type(error).__name__}: {error}") from error
    if values.shape != (count,):
        raise DrawingError(f"judge {name}: {count} numbers were expected, got an array of shape {values.shape}")
    if not np.isfinite(values).all():
        raise DrawingError(f"judge {name}: a number is not finite")
    return values


def _read_only(given: list[str] | np.ndarray) -> list[str] | np.ndarray:
    """Return a copy of prompts or a view of images, so that what a judge does to them reaches no other judge."""
    if isinstance(given, list):
        return list(given)
    view = given.view()
    view.flags.writeable = False
    return view
