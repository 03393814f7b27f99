"""The bench measures what a run does; its peers do the same work to the same scores."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import torch
import yaml

from raymap.actors.generator import Generator
from raymap.actors.specs import GeneratorSpec
from raymap.adapters.read import read_adapter
from raymap.adapters.skeleton import skeleton_of
from raymap.adapters.store import AdapterStore
from raymap.bench import peers, plot
from raymap.bench.contest import Contest, write_contest
from raymap.bench.measure import Report, Timed, Worker, gpu_peak, row
from raymap.bench.models import image_flops, random_base
from raymap.bench.record import ROWS, Record, table
from raymap.bench.setups import Setup, read_setups
from raymap.diffusion.prompts import PromptEncoder
from raymap.diffusion.sampling import draw
from raymap.embedded.model import PIPELINE
from raymap.errors import InputError
from raymap.plan import BASE
from raymap.study import SamplerSettings, Study, load_study

TINY: dict[str, Any] = {"base": "random:tiny", "steps": 2, "device": "cpu"}


def test_a_matrix_is_every_combination_of_its_values(tmp_path: Path) -> None:
    path = tmp_path / "matrix.yaml"
    path.write_text("batch_size: [1, 8]\nsteps: 4\ndevice: cpu\n")
    setups = read_setups(path, ("guidance_scale=[1, 5, 5]",))
    assert [(s.batch_size, s.guidance_scale, s.steps) for s in setups] == [(1, 1, 4), (1, 5, 4), (8, 1, 4), (8, 5, 4)]
    assert len({setup.key for setup in setups}) == 4
    assert [s.batch_size for s in read_setups(None, ("device=cpu",), quick=True)] == [4, 16]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("batchsize: 4", "batchsize"),
        ("base: random:huge", "random:huge"),
        ("batch_size: []", "batch_size"),
        ("batch_size: [4, 0]", "batch_size"),
        ("dtype: float8", "dtype"),
        ("resolution: 100", "resolution"),
        ("{device: cuda, workers: 99}", "99"),
        ("clip: nothing/known", "nothing/known"),
        ("- 3", "no keys"),
        ("a: [", "not YAML"),
    ],
)
def test_a_bad_matrix_is_refused_by_name(text: str, named: str, tmp_path: Path) -> None:
    path = tmp_path / "matrix.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=re.escape(named)) as refused:
        read_setups(path)
    assert "matrix.yaml" in str(refused.value) or "clip" in text


def test_a_bench_is_kept_on_a_local_disk(call: Callable[..., tuple[int, str]]) -> None:
    code, said = call("bench", "--dry-run", "--output", "memory://bench")
    assert (code, "no local path" in said) == (2, True)


def test_a_dry_run_measures_nothing(tmp_path: Path, call: Callable[..., tuple[int, str]]) -> None:
    assert call("bench", "--dry-run", "--quick", "--output", tmp_path / "out")[0] == 0
    assert not (tmp_path / "out").exists()


def test_the_architecture_of_stable_diffusion_1_5_has_its_published_size_and_flops() -> None:
    """860 M, 84 M and 123 M parameters (its model card); 0.8034 TFLOP a pass and 2.48 a decoding (BK-SDM, issue 53)."""
    pipeline = random_base("sd15", "meta")
    sizes = [sum(p.numel() for p in part.parameters()) for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder)]
    assert sizes == [pytest.approx(n * 1e6, rel=0.005) for n in (859.5, 83.65, 123.06)]
    assert image_flops(pipeline, 50, guided=True) == pytest.approx(100 * 0.8034e12 + 2.48e12, rel=0.01)


def test_a_row_follows_from_what_workers_measured() -> None:
    """Two workers, the second a second later: 24 images in 5 seconds, of two peaks of 100 FLOP/s."""
    timed = [
        Timed(began, began + 4, images=12, swaps=3, swap_s=0.3, draw_s=2.7, score_s=1.0, peak=100.0, memory=memory)
        for began, memory in ((10.0, 7), (11.0, 9))
    ]
    found = row(Setup(steps=5, workers=2, device="cpu"), 0, 2.5, Report(0.0, 20.0, "cpu", ()), timed)
    assert found["images_per_s"] == pytest.approx(24 / 5)
    assert found["image_steps_per_s"] == pytest.approx(24)
    assert found["flops_per_s"] == pytest.approx(96)
    assert found["peak_share"] == pytest.approx(0.48)
    assert found["swap_s"] == pytest.approx(0.1)
    assert [found[f"{n}_share"] for n in ("swap", "draw", "score")] == [pytest.approx(s / 4) for s in (0.3, 2.7, 1.0)]
    assert (found["memory_bytes"], found["startup_s"]) == (9, 2.5)


@pytest.mark.parametrize(
    ("name", "dtype", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", "bfloat16", 989),
        ("NVIDIA A100-SXM4-40GB", "float32", 19.5),
        ("NVIDIA L40S", "float16", 362),
        ("NVIDIA L4", "float16", 121),
        ("NVIDIA H100 PCIe", "float16", None),
        ("NVIDIA GeForce RTX 4090", "float16", None),
    ],
)
def test_a_gpus_peak_is_that_of_its_own_data_sheet(name: str, dtype: str, tflops: float | None) -> None:
    assert gpu_peak(name, dtype) == (tflops and tflops * 1e12)


def test_what_is_measured_is_what_a_run_draws(tmp_path: Path) -> None:
    worker = Worker(Setup(steps=3, batch_size=4, device="cpu"), tmp_path)
    block = worker.block(1)
    spec = GeneratorSpec(PIPELINE, {}, worker.sampler, 4, "float32", False, False, threads=1, device="cpu")
    assert len({(item.prompt, item.seed) for item in block.items}) == 4
    assert np.array_equal(worker.draw(block), Generator(spec).draw(block, BASE)[0])
    timed = worker.time(block)
    assert (timed.images, timed.swaps) == (12, 3)
    assert timed.swap_s + timed.draw_s + timed.score_s == pytest.approx(timed.ended - timed.began, rel=0.05)


def test_memory_layout_and_resolution_are_what_a_setup_says(tmp_path: Path) -> None:
    worker = Worker(Setup(**TINY, batch_size=2, channels_last=True, resolution=128), tmp_path)
    assert worker.pipeline.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    assert worker.draw(worker.block(0)).shape == (2, 128, 128, 3)


def test_a_bench_is_measured_once_and_a_setup_that_fails_does_not_stop_the_others(
    tmp_path: Path, call: Callable[..., tuple[int, str]]
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(PIPELINE, broken)
    (broken / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"cut off")
    matrix = tmp_path / "matrix.yaml"
    matrix.write_text(yaml.safe_dump(TINY | {"base": [str(broken), "random:tiny"], "batch_size": 2, "workers": 2}))
    command = ("bench", matrix, "--output", tmp_path / "out", "--repeats", "2", "--price", "1.5")
    code, said = call(*command)
    assert code == 3
    assert "1 of 2 setups failed" in said
    held = pa.ipc.open_file((tmp_path / "out" / "bench.arrow").read_bytes()).read_all()
    assert held.schema.equals(ROWS)
    rows = held.to_pylist()
    assert [(r["repeat"], r["images"], r["base"]) for r in rows] == [(0, 12, "random:tiny"), (1, 12, "random:tiny")]
    assert all(0 < r["peak_share"] < 1.5 and r["seconds"] > 0 for r in rows)
    assert (tmp_path / "out" / "bench.png").read_bytes().startswith(b"\x89PNG")

    matrix.write_text(yaml.safe_dump(TINY | {"batch_size": 2, "workers": 2}))
    assert call(*command)[0] == 0
    assert pa.ipc.open_file((tmp_path / "out" / "bench.arrow").read_bytes()).read_all().equals(held)


def test_the_table_has_medians_and_the_price_of_a_thousand_images(tmp_path: Path) -> None:
    setup = Setup(**TINY, workers=2)
    record = Record(tmp_path)
    report = Report(0.0, 1e12, "some cpu", ())
    record.add(
        [
            row(setup, k, 1.0, report, [Timed(0, s, 100, 3, 0.3, s - 1, 0.7, None, 2**30)])
            for k, s in enumerate((10.0, 20.0, 50.0))
        ]
    )
    again = Record(tmp_path)
    assert again.missing(setup, 5) == [3, 4]
    made = table(again, [setup], price=3.6)
    cells = {str(column.header).replace("\n", " "): next(iter(column.cells)) for column in made.columns}
    assert cells["images/s"] == "5"
    assert cells["least– most"] == "2–10"
    assert cells["of peak"] == "unknown"
    assert cells["92,000 in h"] == "5.11"
    assert cells["1,000 cost"] == "0.4"  # 200 s of two workers at 3.6 an hour
    plot.draw(again, [setup], tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000


def brought(finished: Path, folder: Path) -> Path:
    """Write a study of the finished run's prompts, seeds and sampler that brings its LoRA along."""
    study = yaml.safe_load((finished / "study.yaml").read_text())
    lora = next(
        p.parent for p in finished.glob("adapters/*/adapter.json") if json.loads(p.read_text())["method"] == "lora"
    )
    kept = {key: study[key] for key in ("name", "sampler", "seeds", "batch_size")}
    prompts = [{"text": prompt["text"], "category": prompt["category"]} for prompt in study["prompts"]]
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(kept | {"prompts": prompts, "adapters": [{"path": str(lora), "name": "lora"}]}))
    return path


@pytest.mark.parametrize("program", ["one", "batched"])
def test_a_peer_comes_to_the_scores_of_a_run(
    program: str, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    peers.main(program, brought(finished, tmp_path), tmp_path / "scores.arrow")
    assert float(capsys.readouterr().out.split()[-1]) > 0
    theirs = pl.read_ipc((tmp_path / "scores.arrow").read_bytes())
    texts = {p["id"]: p["text"] for p in yaml.safe_load((finished / "study.yaml").read_text())["prompts"]}
    own = pl.concat([pl.read_ipc(path.read_bytes()) for path in (finished / "scores").iterdir()])
    own = own.filter(pl.col("method") == "lora").with_columns(prompt=pl.col("prompt_id").replace_strict(texts))
    both = own.join(theirs, on=["prompt", "seed"], validate="1:1")
    assert len(both) == len(theirs) == 14
    assert both["lpips"].max() > 1e-3  # type: ignore[operator]
    for name in ("clip_base", "clip_adapted", "lpips"):
        assert np.allclose(both[name], both[f"{name}_right"], atol=1e-3), name


@pytest.fixture(scope="module")
def contest_study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("contest")
    return load_study(write_contest(Setup(steps=3, batch_size=4, device="cpu"), 2, folder))


def test_a_peer_applies_each_method_as_raymap_does_and_takes_it_back(contest_study: Study) -> None:
    torch.set_num_threads(1)
    drawer = peers.Drawer(contest_study)
    items = peers.items_of(contest_study)
    base = drawer.draw(items)
    store = AdapterStore(drawer.pipeline)
    for adapter in contest_study.adapters:
        with drawer.loaded(adapter.path):
            theirs = drawer.draw(items)
        assert np.array_equal(drawer.draw(items), base), adapter.short_name
        store.add(adapter.short_name, read_adapter(adapter.path, skeleton_of(PIPELINE)).adapter)
        store.swap(adapter.short_name)
        prompts, seeds = zip(*items, strict=True)
        sampler = SamplerSettings(steps=3)
        own = draw(drawer.pipeline, PromptEncoder(drawer.pipeline, store), list(prompts), seeds, sampler, 4)
        store.restore()
        assert np.abs(own.astype(int) - theirs).max() <= 1, adapter.short_name
        assert np.array_equal(theirs, base) == (adapter.short_name == "inversion")


def test_a_contest_counts_what_the_proof_spares(tmp_path: Path) -> None:
    contest = Contest(Setup(**TINY, batch_size=4), 2, tmp_path)
    for program in ("raymap", "batched"):
        contest.run(program, 0)
    assert [(r["program"], r["images"], r["drawn"]) for r in contest.own()] == [("raymap", 16, 12), ("batched", 16, 16)]
    assert contest.own()[0]["difference"] == 0
    assert contest.own()[1]["difference"] < 1e-3
    before = contest.path.read_bytes()
    Contest(Setup(**TINY, batch_size=4), 2, tmp_path).run("batched", 0)
    assert contest.path.read_bytes() == before
