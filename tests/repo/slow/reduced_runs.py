"""Run folders of synthetic scores with all that results rest on: features, interventions, attention, private names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from raymap.analysis.reduce import reduce_run
from raymap.analysis.why.attention import reduce_attention
from raymap.analysis.why.factorial import read_design, reduce_factorial
from raymap.analysis.why.interventions import reduce_interventions
from raymap.store.folder import arrow_bytes
from raymap.store.schema import ATTENTION, FEATURES, SCORES, stamped
from raymap.study.adapter import BASE
from raymap.study.interventions import Variant
from raymap.testing.runs import SyntheticRun, full_size, write_run

PLACE = "/home/somebody/pictures"
HOST = "node-17.example.org"
PERSON = "jane_doe"
DIGEST = "synthetic"
LAYERS = ("down_blocks.0.attn2", "up_blocks.1.attn2")
TOKENS = {"content": 4, "bos": 1, "end": 1, "padding": 71}


def write_paper(folder: Path) -> Path:
    """Write a small run of the paper's shape, with features, and reduce it."""
    write_run(folder, full_size(prompts=18, subjects=2, seeds=3, side=16))
    _describe(folder)
    _write_features(folder)
    reduce_run(folder)
    return folder


def write_why(folder: Path) -> Path:
    """Write a small run with interventions and attention, and reduce it."""
    write_run(folder, full_size(prompts=12, subjects=1, seeds=2, side=16))
    _describe(folder)
    _write_interventions(folder)
    _write_attention(folder)
    reduce_run(folder)
    reduce_interventions(folder)
    reduce_attention(folder)
    return folder


def write_factorial(folder: Path) -> Path:
    """Write a small run on the prompts of the factorial suite, and reduce it."""
    kinds = {"concrete": "animals", "abstract": "abstract"}
    prompts = [(text, kinds[kind]) for text, (kind, _) in read_design().items()]
    adapters = full_size(subjects=1).adapters
    write_run(folder, SyntheticRun(adapters, prompts, seeds=2, side=16))
    _describe(folder)
    reduce_run(folder)
    reduce_factorial(folder)
    return folder


def scores_of(folder: Path) -> list[dict[str, Any]]:
    """Return a run's score rows."""
    rows: list[dict[str, Any]] = []
    for path in sorted((folder / "scores").glob("*.arrow")):
        rows += pa.ipc.open_file(path).read_all().to_pylist()
    return rows


def _describe(folder: Path) -> None:
    """Write the study and the record as a run on somebody's machine leaves them."""
    study = yaml.safe_load((folder / "study.yaml").read_text(encoding="utf-8"))
    rows = scores_of(folder)
    images = len(rows) + len({(row["prompt_id"], row["seed"]) for row in rows})
    subjects = [{"name": "face-0", "category": "face", "references": [f"{PLACE}/{PERSON}/0.jpg"]}]
    resources = {"workers": {"min": 1, "max": 2}, "custom": {HOST: 1.0}}
    study |= {"base": f"{PLACE}/base", "clip": "embedded", "lpips": "embedded", "subjects": subjects,
              "sampler": {"steps": 12, "guidance_scale": 5.0}, "resources": resources}  # fmt: skip
    (folder / "study.yaml").write_text(yaml.safe_dump(study, allow_unicode=True), encoding="utf-8")
    worker = {"device": "cpu AVX512", "threads": 1, "host": HOST, "folder": PLACE}
    session = {"started": "2026-01-01T00:00:00+00:00", "training_s": 60.0, "drawn": images - 90, "drawing_s": 30.0,
               "workers": [worker, worker], "seconds": 100.0, "host": HOST}  # fmt: skip
    record = {"study": folder.name, "digest": DIGEST, "images": images, "versions": {"raymap": "0.1.0"},
              "adapters": {}, "sessions": [session], "folder": PLACE}  # fmt: skip
    (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")


def _write_features(folder: Path) -> None:
    rng = np.random.default_rng(5)
    bases: dict[tuple[str, int], np.ndarray] = {}
    rows = []
    for row in scores_of(folder):
        key = (row["prompt_id"], row["seed"])
        about = {name: row[name] for name in ("prompt_id", "prompt_category", "seed")}
        if key not in bases:
            bases[key] = rng.normal(0, 1, 8)
            rows.append({"adapter": BASE, **about, "feature": _unit(bases[key])})
        if row["drawn"]:
            moved = bases[key] + 3 * row["lpips"] * rng.normal(0.3, 0.2, 8)
            rows.append({"adapter": row["adapter"], **about, "feature": _unit(moved)})
    (folder / "features").mkdir()
    table = pa.Table.from_pylist(rows, stamped(FEATURES, DIGEST))
    (folder / "features" / "00000-all.arrow").write_bytes(arrow_bytes(table))


def _unit(vector: np.ndarray) -> list[float]:
    return (vector / np.linalg.norm(vector)).astype(np.float32).tolist()


def _write_interventions(folder: Path) -> None:
    """Write variants of every adapter that updates weights, each a share of what the adapter does."""
    shares = [("dose", f"{d:g}", d) for d in (0.0, 0.5, 1.0, 1.5)]
    shares += [("timesteps", "early", 0.7), ("timesteps", "late", 0.4), ("random", "0", 0.3), ("random", "1", 0.5)]
    shares += [("layer", LAYERS[0], 0.5), ("layer", LAYERS[1], 0.9), ("norm", "0.01", 0.8), ("budget", "100", 0.6)]
    rows = []
    for row in scores_of(folder):
        if row["method"] not in ("lora", "custom_diffusion"):
            continue
        change = row["clip_adapted"] - row["clip_base"]
        for family, level, share in shares:
            variant: Any = Variant(row["adapter"], family, level, share if family == "dose" else 1.0)  # type: ignore[arg-type]
            image = {0.0: row["base_sha256"], 1.0: row["adapted_sha256"]}.get(share, f"{variant.name}-{row['seed']}")
            rows.append(row | {"adapter": variant.name, "clip_adapted": row["clip_base"] + share * change,
                               "lpips": share * row["lpips"], "adapted_sha256": image})  # fmt: skip
    (folder / "interventions").mkdir()
    table = pa.Table.from_pylist(rows, stamped(SCORES, DIGEST))
    (folder / "interventions" / "00000-all.arrow").write_bytes(arrow_bytes(table))


def _write_attention(folder: Path) -> None:
    """Write attention whose shift goes with E_sem: content moves most, and forced a half of free."""
    rows = []
    for score in scores_of(folder):
        names = ("adapter", "method", "subject", "subject_category", "prompt_id", "prompt_category", "seed", "drawn")
        shift = abs(score["clip_adapted"] - score["clip_base"])
        for protocol, share in (("free", 1.0), ("forced", 0.5)):
            for number, layer in enumerate(LAYERS):
                for tokens, count in TOKENS.items():
                    delta = share * shift * (number + 1) / (10 * count)
                    rows.append(
                        {name: score[name] for name in names}
                        | {"protocol": protocol, "layer": layer, "bin": 0, "timestep": 500.0, "heads": 0,
                           "tokens": tokens, "n_tokens": count, "delta": delta, "js": delta / 10,
                           "attention": 1 / 77 if score["drawn"] else None}
                    )  # fmt: skip
    target = folder / "attention" / "scores"
    target.mkdir(parents=True)
    table = pa.Table.from_pylist(rows, stamped(ATTENTION, DIGEST))
    (target / "00000-all.arrow").write_bytes(arrow_bytes(table))
