"""What the bench really measures: setups that draw and score, in this process and in processes of their own."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml

from raymap.actors.generator import Generator
from raymap.actors.specs import GeneratorSpec
from raymap.bench.difference import Difference, difference_from_plain
from raymap.bench.drawing import Drawer, block_of
from raymap.bench.record import ROWS
from raymap.bench.scorer import ScorerProcess
from raymap.bench.setups import Setup
from raymap.bench.worker import Worker
from raymap.embedded.model import PIPELINE
from raymap.errors import DrawingError
from raymap.study.adapter import BASE

TINY: dict[str, Any] = {"base": "random:tiny", "steps": 2, "device": "cpu"}
RIVAL: dict[str, Any] = {"batch_size": 2, "workers": 2, "attention": "math", "scorer": "apart"}


def test_what_is_measured_is_what_a_run_draws(tmp_path: Path) -> None:
    setup = Setup(steps=3, batch_size=4, device="cpu")
    worker = Worker(setup, tmp_path)
    block = block_of(setup, 1)
    spec = GeneratorSpec(PIPELINE, {}, worker.drawer.sampler, 4, "float32", False, False, threads=1, device="cpu")
    assert len({(item.prompt, item.seed) for item in block.items}) == 4
    assert np.array_equal(worker.drawer.draw(block), Generator(spec).draw(block, BASE)[0])
    timed = worker.time(block)
    assert (timed.images, timed.swaps) == (12, 3)
    assert timed.swap_s + timed.draw_s + timed.score_s == pytest.approx(timed.ended - timed.began, rel=0.05)


def test_a_setup_differs_from_the_plain_one_by_what_its_images_do() -> None:
    setup = Setup(**TINY, batch_size=2, dtype="bfloat16")
    block = block_of(setup, 0)
    own, plain = (Drawer(s).draw(block) for s in (setup, setup.plain))
    found, none = difference_from_plain(setup, own), difference_from_plain(setup, plain)
    assert none == Difference(0, 0.0, 0.0, 0.0)
    assert found is not None
    gaps = [abs(a - b) for a, b in zip(own.ravel().tolist(), plain.ravel().tolist(), strict=True)]
    assert found.pixel == max(gaps) > 0
    assert found.pixel_mean == pytest.approx(sum(gaps) / len(gaps))
    assert found.clip > 0
    assert found.lpips > 0
    assert setup != setup.plain
    assert setup.plain == setup.plain.plain == Setup(**TINY, batch_size=2)


def test_a_scorer_apart_writes_what_one_inline_writes_and_refusals_reach_the_drawing_process(tmp_path: Path) -> None:
    written = []
    for scorer in ("inline", "apart"):
        folder = tmp_path / scorer
        setup = Setup(**TINY, batch_size=4, adapters=3, scorer=scorer)
        worker = Worker(setup, folder)
        assert worker.time(block_of(setup, 0)).images == 16
        written.append({p.relative_to(folder): p.read_bytes() for p in sorted(folder.rglob("*.png"))})
    assert written[0] == written[1]
    assert len(written[0]) == 4 + 3 * 2  # of the base all, of an adapter the most distant of each of two prompts
    assert isinstance(worker._scorer, ScorerProcess)
    worker._scorer.take(block_of(setup, 1), None, np.zeros((4, 64, 64, 3), np.uint8))
    with pytest.raises(DrawingError, match="all-black"):
        worker._scorer.finish()


def test_a_bench_is_measured_once_and_a_setup_that_fails_does_not_stop_the_others(
    tmp_path: Path, call: Callable[..., tuple[int, str]]
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(PIPELINE, broken)
    (broken / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"cut off")
    matrix = tmp_path / "matrix.yaml"
    matrix.write_text(yaml.safe_dump(TINY | RIVAL | {"base": [str(broken), "random:tiny"]}))
    command = ("bench", matrix, "--output", tmp_path / "out", "--repeats", "2", "--price", "1.5")
    code, said = call(*command)
    assert code == 3
    assert "1 of 2 setups failed" in said
    held = pa.ipc.open_file((tmp_path / "out" / "bench.arrow").read_bytes()).read_all()
    assert held.schema.equals(ROWS)
    rows = held.to_pylist()
    assert [(r["repeat"], r["images"], r["base"]) for r in rows] == [(0, 12, "random:tiny"), (1, 12, "random:tiny")]
    assert all(0 < r["peak_share"] < 1.5 and r["seconds"] > 0 for r in rows)
    assert all(r["pixel_difference"] <= 2 and r["lpips_difference"] < 0.01 for r in rows)
    assert (tmp_path / "out" / "bench.png").read_bytes().startswith(b"\x89PNG")

    matrix.write_text(yaml.safe_dump(TINY | RIVAL))
    assert call(*command)[0] == 0
    assert pa.ipc.open_file((tmp_path / "out" / "bench.arrow").read_bytes()).read_all().equals(held)
