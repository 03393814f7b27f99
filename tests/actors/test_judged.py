"""A scorer asks further judges about the same images: rows of schema JUDGED, or a failed batch, no wrong number."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from raymap.actors.batches import Drawn
from raymap.actors.scorer import Scorer
from raymap.actors.specs import ScorerSpec
from raymap.errors import DrawingError
from raymap.plan.blocks import AdapterInfo, Block, Item
from raymap.store.schema import DECLARED, JUDGED
from raymap.study.interventions import Variant
from tests.judging import example_module, install, install_example, near

ADAPTER = AdapterInfo("cat", "lora", "cat", "object", "0" * 64)
PROMPTS = ("a red car on a street", "a cup")
ITEMS = tuple(Item(f"p{k:03d}", text, "objects", seed) for k, text in enumerate(PROMPTS) for seed in (7, 8, 9))
BLOCK = Block(0, ITEMS, ((0, 1), (3, 5)))
DRAWN = Drawn((False,) * 6, "cpu", {"draw_s": 0.0})
UNFIT = """
class Unfit:
    version, unit, higher_is_better = "1", "points", True
    def __init__(self, device): pass

class Infinite(Unfit):
    def scores(self, prompts, pixels): return [1.0] * (len(pixels) - 1) + [float("inf")]

class Short(Unfit):
    def distances(self, base, adapted): return [0.0]

class Broken(Unfit):
    def distances(self, base, adapted): raise ValueError("no such layer")

class Writing(Unfit):
    def distances(self, base, adapted):
        base[:] = 0
        return [0.0] * len(base)
"""
Build = Callable[..., Scorer]


@pytest.fixture
def images() -> np.ndarray:
    """Twelve images, uint8 (12, 64, 64, 3), read-only as the views are that a scorer gets."""
    found = np.random.default_rng(2).integers(1, 256, (12, 8, 8, 3), dtype=np.uint8).repeat(8, axis=1).repeat(8, axis=2)
    found.flags.writeable = False
    return found


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Build:
    def scorer(*judges: str, code: str = "", entries: dict[str, str] | None = None) -> Scorer:
        packages = tmp_path / "packages"
        monkeypatch.syspath_prepend(str(install(packages, code, entries) if entries else install_example(packages)))
        monkeypatch.delitem(sys.modules, "my_judges", raising=False)
        return Scorer(ScorerSpec("embedded", "embedded", tmp_path / "run", "d", False, 1, "cpu", judges))

    return scorer


def rows(table: pa.Table | None) -> dict[tuple[str, str, int, int | None], tuple[float | None, ...]]:
    assert table is not None
    return {
        (r["judge"], r["prompt_id"], r["seed"], r["seed_b"]): (r["value_base"], r["value_adapted"], r["value"])
        for r in table.to_pylist()
    }


def test_rows_are_what_the_judges_say_of_the_same_images(build: Build, images: np.ndarray) -> None:
    scorer, guide = build("named-colour", "palette"), example_module()
    base, adapted = images[:6], images[6:]
    prompts = [item.prompt for item in ITEMS]
    scores = {k: guide.NamedColour("cpu").scores(prompts, x) for k, x in (("base", base), ("adapted", adapted))}
    distances = guide.Palette("cpu").distances(base, adapted)
    seeds = scorer.score_base(BLOCK, base, DRAWN).judged
    found = rows(scorer.score_adapted(BLOCK, ADAPTER, adapted, DRAWN, base).judged)
    assert seeds is not None
    assert [(f.name, f.type) for f in seeds.schema] == [(f.name, f.type) for f in JUDGED]
    assert seeds.schema.metadata[b"raymap.digest"] == b"d"
    assert [info["name"] for info in json.loads(seeds.schema.metadata[DECLARED])] == ["named-colour", "palette"]
    assert len(found) == 12
    for k, item in enumerate(ITEMS):
        own = near(scores["base"][k], scores["adapted"][k], None)
        assert found["named-colour", item.prompt_id, item.seed, None] == own
        assert found["palette", item.prompt_id, item.seed, None] == near(None, None, distances[k])
    assert set(seeds["adapter"].to_pylist()) == {"base"}
    between = rows(seeds)
    assert len(between) == 4
    for a, b in BLOCK.pairs:
        key = ITEMS[a].prompt_id, ITEMS[a].seed, ITEMS[b].seed
        assert between["named-colour", *key] == near(scores["base"][a], scores["base"][b], None)
        distance = guide.Palette("cpu").distances(base[a : a + 1], base[b : b + 1])[0]
        assert between["palette", *key] == near(None, None, distance)


def test_images_that_are_proved_equal_have_no_distance_and_equal_scores(build: Build, images: np.ndarray) -> None:
    scorer, nothing = build("named-colour", "palette"), np.empty((0, 0, 0, 3), np.uint8)
    found = rows(scorer.score_adapted(BLOCK, ADAPTER, nothing, DRAWN, images[:6]).judged)
    for (judge, *_), (own, adapted, distance) in found.items():
        assert (own == adapted is not None, distance) == ((True, None) if judge == "named-colour" else (False, 0.0))
    assert len(found) == 12


def test_variants_of_adapters_and_runs_without_further_judges_have_no_rows(build: Build, images: np.ndarray) -> None:
    variant = AdapterInfo(Variant("cat", "dose", "0.5", 0.5).name, "lora", "cat", "object", "0" * 64)
    assert build("palette").score_adapted(BLOCK, variant, images[6:], DRAWN, images[:6]).judged is None
    assert build().score_adapted(BLOCK, ADAPTER, images[6:], DRAWN, images[:6]).judged is None
    assert build().score_base(BLOCK, images[:6], DRAWN).judged is None


def test_a_block_without_seed_pairs_has_an_empty_table(build: Build, images: np.ndarray) -> None:
    block = Block(1, ITEMS, ())
    table = build("named-colour", "palette").score_base(block, images[:6], DRAWN).judged
    assert table is not None
    assert table.num_rows == 0
    assert table.schema.names == JUDGED.names


@pytest.mark.parametrize(
    ("judge", "error", "said"),
    [
        ("Infinite", DrawingError, "judge unfit: a number is not finite"),
        ("Short", DrawingError, r"judge unfit: 2 numbers were expected, got an array of shape \(1,\)"),
        ("Broken", RuntimeError, "judge unfit: ValueError: no such layer"),
        ("Writing", RuntimeError, "judge unfit: ValueError: assignment destination is read-only"),
    ],
)
def test_a_judge_that_gives_no_finite_number_per_image_fails_the_batch(
    build: Build, images: np.ndarray, judge: str, error: type[Exception], said: str
) -> None:
    scorer = build("unfit", code=UNFIT, entries={"unfit": f"my_judges:{judge}"})
    with pytest.raises(error, match=said):
        scorer.score_base(BLOCK, images[:6], DRAWN)
