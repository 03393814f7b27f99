"""Interventions of a real run: the map untouched, dose 0 the base and dose 1 the adapter, lost variants drawn again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
import yaml

from raymap.analysis.why.statistics import InterventionsSummary
from raymap.results import Run
from raymap.store.schema import INTERVENTIONS
from tests.commands import run_here
from tests.once import made_once

ASKED = {
    "dose": [0, 1, 1.5], "parts": ["attention", "timesteps"], "equal_norm": True, "random": 1, "equal_budget": True,
}  # fmt: skip
NAMES = {
    "dose=0", "dose=1", "dose=1.5", "attention=attn1", "attention=attn2", "timesteps=early", "timesteps=late",
    "random=0",
}  # fmt: skip


@pytest.fixture(scope="session")
def intervened(finished: Path, study: Path, shared: Path, cluster: str) -> Path:
    """The small study's finished run folder, copied and run again with interventions."""

    def make(output: Path) -> None:
        shutil.copytree(finished, output)
        run_again(output, study, shared, cluster)

    return made_once(shared / "intervened", make)


def run_again(output: Path, study: Path, folder: Path, cluster: str) -> None:
    raw = yaml.safe_load(study.read_text()) | {"interventions": ASKED}
    path = folder / "intervened.yaml"
    path.write_text(yaml.safe_dump(raw))
    ended = run_here("run", path, "--output", output, address=cluster)
    assert "interventions: 10 variants = 140 more images" in ended.out


def reduced(run: Path) -> tuple[pl.DataFrame, InterventionsSummary]:
    found = Run(run).interventions
    assert found is not None
    return pl.read_ipc(run / "interventions.arrow"), found


def varied(run: Path) -> pl.DataFrame:
    return pl.concat([pl.read_ipc(p) for p in sorted((run / "interventions").glob("*.arrow"))])


def test_interventions_leave_the_map_and_its_statistics_as_they_were(finished: Path, intervened: Path) -> None:
    for name in ("map.arrow", "shifts.arrow", "statistics.json", "noise.arrow"):
        assert (intervened / name).read_bytes() == (finished / name).read_bytes()
    for folder in ("scores", "features", "noise"):
        found = sorted(p.name for p in (intervened / folder).iterdir())
        assert found == sorted(p.name for p in (finished / folder).iterdir())


def test_every_variant_prompt_and_seed_is_drawn_once(intervened: Path) -> None:
    scores = varied(intervened)
    keys = scores.select("adapter", "prompt_id", "seed")
    assert keys.height == keys.unique().height == 10 * 7 * 2
    own = {name.removeprefix("star-cup-lora@") for name in scores["adapter"].unique()}
    assert own >= NAMES
    assert {name.partition("=")[0] for name in own - NAMES} == {"norm", "budget"}


def test_dose_0_is_the_base_and_dose_1_the_adapter_to_the_byte(finished: Path, intervened: Path) -> None:
    scores = varied(intervened)
    none = scores.filter(pl.col("adapter") == "star-cup-lora@dose=0")
    assert none.height == 14
    assert (none["adapted_sha256"] == none["base_sha256"]).all()
    assert none["lpips"].max() == 0
    assert (none["clip_adapted"] == none["clip_base"]).all()
    plain = pl.concat([pl.read_ipc(p) for p in sorted((finished / "scores").glob("*star-cup-lora.arrow"))])
    # The smallest adapter's norm and budget are its own, so these variants are the adapter, too.
    for level in ("dose=1", "norm", "budget"):
        whole = scores.filter(pl.col("adapter").str.starts_with(f"star-cup-lora@{level}"))
        whole = whole.filter(pl.col("adapter") != "star-cup-lora@dose=1.5")
        assert whole.drop("adapter").sort("prompt_id", "seed").equals(plain.drop("adapter").sort("prompt_id", "seed"))
    found = json.loads((intervened / "interventions.json").read_text())
    assert found["checks"] == [{"adapter": "star-cup-lora", "dose_0_is_the_base": True, "dose_1_is_the_adapter": True}]


def test_masks_and_halves_are_neither_the_base_nor_the_adapter(intervened: Path) -> None:
    scores = varied(intervened)
    images = {
        name: part.sort("prompt_id", "seed")["adapted_sha256"].to_list()
        for (name,), part in scores.group_by("adapter")
        if "norm" not in str(name) and "budget" not in str(name)
    }
    assert len({tuple(p) for p in images.values()}) == len(images) == 8
    for k in range(14):
        assert len({p[k] for p in images.values()}) == 8


def test_a_variant_s_cells_are_reckoned_as_the_map_s(intervened: Path) -> None:
    cells, found = reduced(intervened)
    with pa.ipc.open_file(intervened / "interventions.arrow") as file:
        assert [(f.name, f.type) for f in file.schema] == [(f.name, f.type) for f in INTERVENTIONS]
        digest = file.schema.metadata[b"raymap.digest"].decode()
    assert digest == found["digest"] == json.loads((intervened / "run.json").read_text())["digest"]
    scores = varied(intervened)
    assert cells.height == 10 * 7
    assert set(cells["intervened"]) == {"star-cup-lora"}
    assert set(cells["method"]) == {"lora"}
    for cell in cells.iter_rows(named=True):
        own = scores.filter((pl.col("adapter") == cell["adapter"]) & (pl.col("prompt_id") == cell["prompt_id"]))
        shift = own["clip_adapted"].cast(pl.Float64) - own["clip_base"].cast(pl.Float64)
        assert cell["e_sem"] == pytest.approx(shift.abs().mean(), rel=1e-12)
        assert cell["e_per"] == pytest.approx(own["lpips"].cast(pl.Float64).mean(), rel=1e-12)
        assert cell["target"] == (cell["prompt_category"] == "objects")
        assert cell["alpha"] == (float(cell["level"]) if cell["family"] == "dose" else 1.0)


def test_the_statistics_of_interventions_hold_what_was_asked_for(intervened: Path) -> None:
    _, found = reduced(intervened)
    assert {row["measure"] for row in found["dose"]} == {"e_sem", "e_per"}
    assert {row["family"] for row in found["parts"]} == {"attention", "timesteps"}
    whole = pl.read_ipc(intervened / "map.arrow").filter(~pl.col("target") & (pl.col("adapter") == "star-cup-lora"))
    means = [(row["measure"], row["whole"]) for row in found["parts"]]
    means += [(row["measure"], row["learned"]) for row in found["random"]]
    for measure, own in means:
        assert own["value"] == pytest.approx(whole[measure].mean(), rel=1e-9)
        assert own["n"] == whole.height == 5
    curve = {step["dose"]: step["value"] for step in found["dose"][0]["curve"]}
    assert curve[0.0] == 0.0
    assert curve[1.0] == pytest.approx(whole[found["dose"][0]["measure"]].mean(), rel=1e-9)
    assert any("random updates of the norm and rank of star-cup-lora" in line for line in found["reading"])


def test_what_a_changed_study_no_longer_asks_for_has_no_part_in_its_statistics(
    intervened: Path, study: Path, tmp_path: Path, cluster: str
) -> None:
    output, fewer = tmp_path / "run", tmp_path / "fewer.yaml"
    shutil.copytree(intervened, output)
    fewer.write_text(yaml.safe_dump(yaml.safe_load(study.read_text()) | {"interventions": {"dose": [0, 1]}}))
    run_here("run", fewer, "--output", output, address=cluster)
    cells, found = reduced(output)
    assert set(cells["adapter"]) == {"star-cup-lora@dose=0", "star-cup-lora@dose=1"}
    assert [step["dose"] for step in found["dose"][0]["curve"]] == [0.0, 1.0]
    assert not found["parts"]
    assert not found["random"]
    assert len(list((output / "interventions").iterdir())) == len(list((intervened / "interventions").iterdir()))


def test_a_lost_variant_is_drawn_again_to_the_same_bytes(
    intervened: Path, study: Path, tmp_path: Path, cluster: str
) -> None:
    output = tmp_path / "run"
    shutil.copytree(intervened, output)
    names = ["00001-star-cup-lora@random=0.arrow", "00002-star-cup-lora@timesteps=late.arrow"]
    for name in names:
        (output / "interventions" / name).unlink()
    run_again(output, study, tmp_path, cluster)
    for name in names:
        assert (output / "interventions" / name).read_bytes() == (intervened / "interventions" / name).read_bytes()
    session = json.loads((output / "run.json").read_text())["sessions"][-1]
    assert session["interventions"] == 10
    assert session["drawn"] == 8
    assert (output / "interventions.arrow").read_bytes() == (intervened / "interventions.arrow").read_bytes()
