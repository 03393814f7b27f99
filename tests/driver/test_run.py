"""A run, whole: real command, real Ray, real files. Its numbers are computed again by other means."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
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

from raymap.embedded.model import CLIP, CLIP_NAME, LPIPS
from raymap.store.schema import MAP, NOISE, SCORES
from tests.conftest import raymap_command, small_study


def scores_of(run: Path) -> pl.DataFrame:
    return pl.concat([pl.read_ipc(p) for p in sorted((run / "scores").glob("*.arrow"))])


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*.arrow"))}


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


def test_the_trained_adapter_shifts_pictures(finished: Path) -> None:
    adapted = scores_of(finished).filter(pl.col("method") == "lora")
    assert (adapted["base_sha256"] != adapted["adapted_sha256"]).all()
    assert (adapted["lpips"] > 0).all()
    assert adapted["drawn"].all()


def picture(run: Path, adapter: str, prompt_id: str, seed: int) -> np.ndarray:
    return np.asarray(Image.open(run / "images" / adapter / prompt_id / f"{seed}.png"))


def test_scores_equal_direct_calls_on_the_saved_images(finished: Path) -> None:
    open_clip.add_model_config(CLIP / f"{CLIP_NAME}.json")
    clip, _, preprocess = open_clip.create_model_and_transforms(
        CLIP_NAME, pretrained=str(CLIP / "open_clip_model.safetensors")
    )
    clip.eval()
    tokenize = open_clip.get_tokenizer(CLIP_NAME)
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
        base = picture(finished, "base", row["prompt_id"], row["seed"])
        adapted = picture(finished, row["adapter"], row["prompt_id"], row["seed"])
        assert hashlib.sha256(base.tobytes()).hexdigest() == row["base_sha256"]
        assert hashlib.sha256(adapted.tobytes()).hexdigest() == row["adapted_sha256"]
        assert cosine(prompts[row["prompt_id"]], base) == pytest.approx(row["clip_base"], abs=2e-6)
        assert cosine(prompts[row["prompt_id"]], adapted) == pytest.approx(row["clip_adapted"], abs=2e-6)
        assert distance(base, adapted) == pytest.approx(row["lpips"], abs=2e-5)
    pair = pl.read_ipc(finished / "noise.arrow").row(0, named=True)
    one, other = (picture(finished, "base", pair["prompt_id"], pair[k]) for k in ("seed_a", "seed_b"))
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


def test_stats_and_report_need_only_scores_and_noise(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "scores", tmp_path / "scores")
    shutil.copy(finished / "noise.arrow", tmp_path)
    for command in ("stats", "report"):
        subprocess.run(raymap_command(command, tmp_path), check=True, capture_output=True, timeout=120)
    one, other = (pl.read_ipc(p / "map.arrow").drop("prompt") for p in (finished, tmp_path))
    assert one.equals(other)
    assert (tmp_path / "report" / "index.html").is_file()


def test_a_finished_run_draws_nothing_again(finished: Path, study: Path) -> None:
    before, ledger = files(finished), (finished / "ledger.jsonl").read_bytes()
    subprocess.run(raymap_command("run", study, "--output", finished), check=True, capture_output=True, timeout=120)
    assert files(finished) == before
    assert (finished / "ledger.jsonl").read_bytes() == ledger


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(finished: Path, study: Path, tmp_path: Path) -> None:
    """SIGKILL to the driver halfway: what was committed is not drawn again, and no byte differs from a whole run."""
    output = tmp_path / "second"
    command = raymap_command("run", study, "--output", output)
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    ledger = output / "ledger.jsonl"
    deadline = time.monotonic() + 300
    while not (ledger.exists() and ledger.read_bytes().count(b"\n") >= 4):
        assert driver.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    loaded = Path(f"/proc/{driver.pid}/maps").read_text()
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    assert "libtorch" not in loaded, "a driver that has trained and drawn needs no torch"
    time.sleep(8)  # what the dead driver left behind ends by itself
    committed = ledger.read_bytes().count(b"\n")
    assert committed < 12
    subprocess.run(command, check=True, capture_output=True, timeout=400)
    units = [(entry["block"], entry["adapter"]) for entry in map(json.loads, ledger.read_bytes().splitlines())]
    assert len(units) == len(set(units)) == 12
    session = json.loads((output / "run.json").read_text())["sessions"][-1]
    assert session["drawn"] == 2 * 7 * 3 - sum(4 if block < 3 else 2 for block, _ in units[:committed])
    assert files(output / "scores") == files(finished / "scores")
    assert (output / "noise.arrow").read_bytes() == (finished / "noise.arrow").read_bytes()
    assert (output / "map.arrow").read_bytes() == (finished / "map.arrow").read_bytes()


def test_a_run_is_not_drawn_on_by_another_version_of_torch(finished: Path, study: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    shutil.copytree(finished, output)
    record = json.loads((output / "run.json").read_text())
    assert record["versions"]["torch"] == torch.__version__.partition("+")[0]
    record["versions"]["torch"] = "2.0.0"
    (output / "run.json").write_text(json.dumps(record))
    command = raymap_command("run", study, "--output", output)
    subprocess.run(
        command, check=True, capture_output=True, timeout=120
    )  # nothing is missing: only statistics are made
    ledger = output / "ledger.jsonl"
    ledger.write_bytes(b"".join(ledger.read_bytes().splitlines(keepends=True)[:-1]))
    before = files(output)
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    said = " ".join(done.stderr.split())
    assert (done.returncode, "was drawn with torch 2.0.0, here is" in said) == (2, True), said
    assert files(output) == before


def test_a_batch_that_cannot_be_scored_is_a_failure_not_a_number(finished: Path, tmp_path: Path) -> None:
    """An adapter that overflows to non-finite pixels: recorded, the rest drawn, exit code 3."""
    adapter = tmp_path / "overflow"
    shutil.copytree(finished / "adapters" / "star-cup-lora", adapter)
    weights = adapter / "pytorch_lora_weights.safetensors"
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(weights, framework="pt") as file:
        metadata = file.metadata()
    save_file({k: torch.full_like(v, 1e17) for k, v in load_file(weights).items()}, weights, metadata=metadata)
    card = json.loads((adapter / "adapter.json").read_text())
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    (adapter / "adapter.json").write_text(json.dumps(card | {"name": "overflow", "sha256": digest}))
    path = small_study(
        tmp_path, subjects=None, adapters=[str(adapter)], prompts={"objects": ["a red car", "a blue cup"]}
    )
    output = tmp_path / "run"
    done = subprocess.run(
        raymap_command("run", path, "--output", output), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 3, done.stdout + done.stderr
    failures = [json.loads(line) for line in (output / "failures.jsonl").read_text().splitlines()]
    assert [(f["block"], f["adapter"]) for f in failures] == [(0, "overflow")]
    assert "non-finite" in failures[0]["problem"]
    assert set(scores_of(output)["adapter"]) == {"identity-lora"}


def test_an_interrupted_run_says_so_and_ends_with_130(study: Path, tmp_path: Path) -> None:
    command = raymap_command("run", study, "--output", tmp_path / "run")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    while "training" not in process.stdout.readline():
        assert process.poll() is None
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=120)
    assert process.returncode == 130, rest
    assert "the same command goes on" in rest
