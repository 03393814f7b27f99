"""The bench measures what a run does; its peers do the same work to the same scores."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raymap.bench import plot
from raymap.bench.difference import Difference
from raymap.bench.energy import processor_meter
from raymap.bench.measure import row
from raymap.bench.models import image_flops, random_base
from raymap.bench.peers.contest import available, write_contest
from raymap.bench.record import Record, table
from raymap.bench.setups import Setup, read_setups
from raymap.bench.worker import Timing, WorkerReport, gpu_peak
from raymap.errors import InputError
from raymap.study.file import load_study

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
        ("compile: fastest", "compile"),
        ("attention: flashy", "attention"),
        ("scorer: aside", "scorer"),
        ("resolution: 100", "resolution"),
        ("{device: cuda, workers: 99}", "99"),
        ("clip: nothing/known", "nothing/known"),
        ("clip: random:nothing", "random:nothing"),
        ("lpips: random:embedded", "random:embedded"),
        ("- 3", "no keys"),
        ("a: [", "not YAML"),
    ],
)
def test_a_bad_matrix_is_refused_by_name(text: str, named: str, tmp_path: Path) -> None:
    path = tmp_path / "matrix.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=re.escape(named)) as refused:
        read_setups(path)
    assert "matrix.yaml" in str(refused.value) or text.startswith(("clip:", "lpips:"))


def test_a_bench_is_kept_on_a_local_disk(call: Callable[..., tuple[int, str]]) -> None:
    code, said = call("bench", "--dry-run", "--output", "memory://bench")
    assert (code, "is not a local path" in said) == (2, True)


def test_a_dry_run_measures_nothing(tmp_path: Path, call: Callable[..., tuple[int, str]]) -> None:
    assert call("bench", "--dry-run", "--quick", "--output", tmp_path / "out")[0] == 0
    assert not (tmp_path / "out").exists()


def test_the_architecture_of_stable_diffusion_1_5_has_its_published_size_and_flops() -> None:
    """860 M, 84 M and 123 M parameters (its model card); 0.8034 TFLOP a pass and 2.48 a decoding (BK-SDM, issue 53)."""
    pipeline = random_base("sd15", "meta")
    sizes = [sum(p.numel() for p in part.parameters()) for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder)]
    assert sizes == [pytest.approx(n * 1e6, rel=0.005) for n in (859.5, 83.65, 123.06)]
    assert image_flops(pipeline, 50, guided=True) == pytest.approx(100 * 0.8034e12 + 2.48e12, rel=0.01)


def report(flops: float) -> WorkerReport:
    return WorkerReport(0.0, flops, "some cpu", (), np.empty(0))


def test_a_row_follows_from_what_workers_measured() -> None:
    """Two workers, the second a second later: 24 images in 5 seconds, of two peaks of 100 FLOP/s."""
    timed = [
        Timing(began, began + 4, images=12, swaps=3, swap_s=0.3, draw_s=2.7, score_s=1.0, peak=100.0, memory=memory)
        for began, memory in ((10.0, 7), (11.0, 9))
    ]
    found = row(Setup(steps=5, workers=2, device="cpu"), 0, 2.5, report(20.0), timed)
    assert found["images_per_s"] == pytest.approx(24 / 5)
    assert found["image_steps_per_s"] == pytest.approx(24)
    assert found["flops_per_s"] == pytest.approx(96)
    assert found["peak_share"] == pytest.approx(0.48)
    assert found["swap_s"] == pytest.approx(0.1)
    assert [found[f"{n}_share"] for n in ("swap", "draw", "score")] == [pytest.approx(s / 4) for s in (0.3, 2.7, 1.0)]
    assert (found["memory_bytes"], found["startup_s"]) == (9, 2.5)
    assert found["joules_per_image"] is found["pixel_difference"] is None


def test_each_gpu_has_a_meter_of_its_own_and_all_processors_have_one() -> None:
    timed = [Timing(0, 4, 12, 3, 0.3, 2.7, 1.0, None, 7, joules) for joules in (48.0, 72.0)]
    cpu = row(Setup(workers=2, device="cpu"), 0, 2.5, report(20.0), timed)
    assert cpu["joules_per_image"] == pytest.approx(72 / 24)
    gpus = row(Setup(device="cpu").model_copy(update={"device": "cuda"}), 0, 2.5, report(20.0), timed)
    assert gpus["joules_per_image"] == pytest.approx(120 / 24)


def powercap(folder: Path, zone: str, name: str, energy: int | None, most: int = 1_000_000_000) -> None:
    """Write a zone as Linux shows it (Documentation/power/powercap/powercap.rst)."""
    (folder / zone).mkdir(exist_ok=True)
    (folder / zone / "name").write_text(f"{name}\n")
    (folder / zone / "max_energy_range_uj").write_text(f"{most}\n")
    if energy is not None:
        (folder / zone / "energy_uj").write_text(f"{energy}\n")


def test_processors_joules_are_those_of_their_packages_and_continue_where_a_counter_restarts(tmp_path: Path) -> None:
    powercap(tmp_path, "intel-rapl:0", "package-0", 5_000_000)
    powercap(tmp_path, "intel-rapl:1", "package-1", 999_000_000)
    powercap(tmp_path, "intel-rapl:0:0", "core", 1_000_000)  # counted in its package
    powercap(tmp_path, "intel-rapl-mmio:0", "package-0", 5_000_000)  # the first again, by another way
    meter = processor_meter(tmp_path)
    assert meter is not None
    powercap(tmp_path, "intel-rapl:0", "package-0", 7_500_000)
    powercap(tmp_path, "intel-rapl:0:0", "core", 2_000_000)
    powercap(tmp_path, "intel-rapl:1", "package-1", 2_000_000)  # 1 J to its range, 2 J beyond
    assert meter.lap() == pytest.approx(2.5 + 3)
    assert meter.lap() == 0
    powercap(tmp_path, "intel-rapl:1", "package-1", 3_000_000)
    assert meter.lap() == pytest.approx(1)


def test_processors_without_readable_counters_have_no_meter(tmp_path: Path) -> None:
    assert processor_meter(tmp_path / "none") is None
    powercap(tmp_path, "intel-rapl:0", "psys", 1)
    assert processor_meter(tmp_path) is None
    powercap(tmp_path, "intel-rapl:1", "package-0", None)
    assert processor_meter(tmp_path) is None


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


def test_the_table_has_medians_and_the_price_of_a_thousand_images(tmp_path: Path) -> None:
    setup = Setup(**TINY, workers=2)
    record = Record(tmp_path)
    differs = Difference(3, 0.021, 0.0004, 0.002)
    record.add(
        [
            row(setup, k, 1.0, report(1e12), [Timing(0, s, 100, 3, 0.3, s - 1, 0.7, None, 2**30)], differs)
            for k, s in enumerate((10.0, 20.0, 50.0))
        ]
    )
    again = Record(tmp_path)
    assert again.missing(setup, 5) == [3, 4]
    made = table(again, [setup], price=3.6)
    cells = {str(column.header).replace("\n", " "): next(iter(column.cells)) for column in made.columns}
    assert cells["images/s"] == "5"
    assert cells["min– max"] == "2–10"
    assert cells["share of peak"] == "unknown"
    assert cells["92,000 images, h"] == "5.11"
    assert cells["cost of 1,000"] == "0.4"  # 200 s of two workers at 3.6 an hour
    assert cells["pixels differ, max (mean)"] == "3 (0.021)"
    assert cells["CLIP, LPIPS differ"] == "0.0004, 0.002"
    assert "J per image" not in cells  # no device counts its energy
    plot.draw(again, [setup], tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000


@pytest.mark.parametrize("pair", ["attention=math", "resolution=128", "batch_size=1"])
def test_peers_do_a_study_and_no_setup_that_is_none(
    pair: str, call: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    code, err = call("bench", "--quick", "--peers", "--set", pair, "--output", tmp_path / "bench")
    assert (code, "--peers" in err, pair.partition("=")[0] in err) == (2, True, True)
    assert not (tmp_path / "bench" / "bench.arrow").exists()


def test_a_compiled_setup_has_a_compiled_peer_and_a_compiled_run(tmp_path: Path) -> None:
    plain, compiled = (Setup(**TINY, compile=mode) for mode in ("none", "reduce-overhead"))
    assert set(available(compiled)) - set(available(plain)) == {"compiled"}
    for _ in range(2):  # one that was interrupted while it wrote begins again
        assert load_study(write_contest(compiled, 2, tmp_path)).speed.compile == "reduce-overhead"
