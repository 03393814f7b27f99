"""A run, whole: real command, real Ray, real files. Its numbers are computed again by other means."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import lpips
import numpy as np
import open_clip
import polars as pl
import pyarrow as pa
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from raymap.driver import cost
from raymap.driver.prepare import prepare
from raymap.embedded.model import CLIP, LPIPS
from raymap.store.folder import RunFolder
from raymap.store.schema import MAP, NOISE, SCORES
from raymap.study.file import load_study
from tests.driver.ray.run_files import scores_of

Call = Callable[..., tuple[int, str]]


def test_the_run_folder_holds_the_contract(finished: Path) -> None:
    for name in ("study.yaml", "run.json", "noise.arrow", "map.arrow", "statistics.json", "ledger.jsonl"):
        assert (finished / name).is_file(), name
    assert (finished / "report" / "index.html").is_file()
    assert {p.name for p in (finished / "adapters").iterdir()} == {"star-cup-lora", "identity-lora"}
    for path, schema in (
        (finished / "map.arrow", MAP),
        (finished / "noise.arrow", NOISE),
        (next((finished / "scores").glob("*.arrow")), SCORES),
    ):
        found = pa.ipc.open_file(path).schema
        assert [(f.name, f.type) for f in found] == [(f.name, f.type) for f in schema]
        assert found.metadata[b"raymap.digest"].decode() == json.loads((finished / "run.json").read_text())["digest"]


def test_every_adapter_prompt_and_seed_has_one_row(finished: Path) -> None:
    keys = scores_of(finished).select("adapter", "prompt_id", "seed")
    assert keys.height == keys.unique().height == 2 * 7 * 2
    assert pl.read_ipc(finished / "noise.arrow").height == 7


def test_the_identity_control_is_exactly_zero(finished: Path) -> None:
    control = scores_of(finished).filter(pl.col("method") == "identity")
    assert control.height == 14
    assert (control["base_sha256"] == control["adapted_sha256"]).all()
    assert (control["clip_base"] == control["clip_adapted"]).all()
    assert (control["lpips"] == 0).all()
    cells = pl.read_ipc(finished / "map.arrow").filter(pl.col("method") == "identity")
    assert cells["e_sem"].max() == cells["e_per"].max() == 0.0
    assert json.loads((finished / "statistics.json").read_text())["identity_control"]["exact"] is True


def test_the_trained_adapter_shifts_images(finished: Path) -> None:
    adapted = scores_of(finished).filter(pl.col("method") == "lora")
    assert (adapted["base_sha256"] != adapted["adapted_sha256"]).all()
    assert (adapted["lpips"] > 0).all()
    assert adapted["drawn"].all()


def image_of(run: Path, adapter: str, prompt_id: str, seed: int) -> np.ndarray:
    return np.asarray(Image.open(run / "images" / adapter / prompt_id / f"{seed}.png"))


def test_scores_equal_direct_calls_on_the_saved_images(finished: Path) -> None:
    clip, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{CLIP}")
    clip.eval()
    tokenize = open_clip.get_tokenizer(f"local-dir:{CLIP}")
    metric = lpips.LPIPS(net="squeeze", pretrained=False, pnet_rand=True, verbose=False).eval()
    metric.load_state_dict({k: v.float() for k, v in load_file(LPIPS).items()}, strict=False)
    prompts = {p["id"]: p["text"] for p in yaml.safe_load((finished / "study.yaml").read_text())["prompts"]}

    def cosine(prompt: str, pixels: np.ndarray) -> float:
        with torch.no_grad():
            a = clip.encode_text(tokenize([prompt]))
            b = clip.encode_image(preprocess(Image.fromarray(pixels))[None])
        return torch.nn.functional.cosine_similarity(a, b).item()

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        x, y = (torch.tensor(p).permute(2, 0, 1)[None] / 255 for p in (a, b))
        with torch.no_grad():
            return float(metric(x, y, normalize=True).item())

    for row in scores_of(finished).filter(pl.col("method") == "lora").iter_rows(named=True):
        base = image_of(finished, "base", row["prompt_id"], row["seed"])
        adapted = image_of(finished, row["adapter"], row["prompt_id"], row["seed"])
        assert hashlib.sha256(base.tobytes()).hexdigest() == row["base_sha256"]
        assert hashlib.sha256(adapted.tobytes()).hexdigest() == row["adapted_sha256"]
        assert cosine(prompts[row["prompt_id"]], base) == pytest.approx(row["clip_base"], abs=2e-6)
        assert cosine(prompts[row["prompt_id"]], adapted) == pytest.approx(row["clip_adapted"], abs=2e-6)
        assert distance(base, adapted) == pytest.approx(row["lpips"], abs=2e-5)
    pair = pl.read_ipc(finished / "noise.arrow").row(0, named=True)
    one, other = (image_of(finished, "base", pair["prompt_id"], pair[k]) for k in ("seed_a", "seed_b"))
    assert distance(one, other) == pytest.approx(pair["e_per"], abs=2e-5)
    shift = cosine(prompts[pair["prompt_id"]], one) - cosine(prompts[pair["prompt_id"]], other)
    assert abs(shift) == pytest.approx(pair["e_sem"], abs=4e-6)


def test_the_map_is_recomputed_from_scores_alone(finished: Path) -> None:
    expected: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for row in scores_of(finished).iter_rows(named=True):
        key = row["prompt_id"], row["adapter"]
        expected.setdefault(key, []).append((row["clip_adapted"] - row["clip_base"], row["lpips"]))
    cells = pl.read_ipc(finished / "map.arrow")
    assert cells.height == len(expected)
    noise = pl.read_ipc(finished / "noise.arrow")
    tau = {k: np.quantile(noise[k].to_numpy().astype(np.float64), 0.95) for k in ("e_sem", "e_per")}
    for cell in cells.iter_rows(named=True):
        shift, distance = np.array(expected[cell["prompt_id"], cell["adapter"]]).T
        assert cell["e_sem"] == pytest.approx(np.abs(shift).mean(), rel=1e-12)
        assert cell["e_sem_signed"] == pytest.approx(shift.mean(), rel=1e-12, abs=1e-18)
        assert cell["e_per"] == pytest.approx(distance.mean(), rel=1e-12)
        assert cell["n_seeds"] == 2
        assert cell["above_tau_sem"] == (cell["e_sem"] > tau["e_sem"])
        assert cell["above_tau_per"] == (cell["e_per"] > tau["e_per"])
        assert cell["target"] == (cell["adapter"] == "star-cup-lora" and cell["prompt_category"] == "objects")


def test_a_driver_that_has_trained_and_draws_needs_no_torch(finished: Path) -> None:
    loaded = finished.with_name("finished.loaded").read_text()
    assert "/ray/" in loaded
    assert "libtorch" not in loaded


def test_stats_and_report_need_only_scores_and_noise(finished: Path, tmp_path: Path, call: Call) -> None:
    shutil.copytree(finished / "scores", tmp_path / "scores")
    shutil.copy(finished / "noise.arrow", tmp_path)
    for command in ("stats", "report"):
        assert call(command, tmp_path)[0] == 0
    one, other = (pl.read_ipc(p / "map.arrow").drop("prompt") for p in (finished, tmp_path))
    assert one.equals(other)
    assert (tmp_path / "report" / "index.html").is_file()


def test_the_disk_that_is_foretold_is_what_a_run_takes(study: Path, finished: Path) -> None:
    held = RunFolder(finished)
    files = [p for folder in ("images", "scores", "features") for p in (held.root / folder).rglob("*") if p.is_file()]
    files += held.root.glob("adapters/*/*.safetensors")
    taken = sum(p.stat().st_size for p in files)
    assert cost.estimate(prepare(load_study(study))).bytes == pytest.approx(taken, rel=0.5)
