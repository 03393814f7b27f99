"""A package adds personalization methods by its entry points alone: they are trained, drawn, mapped and reported."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
import yaml
from safetensors.torch import load_file

from raymap.adapters.read import read_adapter
from raymap.base.model import Base
from raymap.base.pipeline import load
from raymap.driver.prepare import prepare
from raymap.embedded.model import PIPELINE
from raymap.errors import InputError
from raymap.report.figures.regions import marker_of
from raymap.study.file import load_study
from raymap.study.methods.registry import find_method, method_names
from tests.commands import finish, python, raymap_command
from tests.once import made_once
from tests.small_study import small_study

PLUGINS = Path(__file__).parents[2] / "plugins"
ADDED = ("attention_output", "lora_of_values")
ENTRY_POINTS = """\
[raymap.methods]
attention_output = attention_output.methods:ATTENTION_OUTPUT
lora_of_values = attention_output.methods:LORA_OF_VALUES
"""
PROMPTS = {"animals": ["a brown bear on snow"], "objects": ["a red car on a street"], "scenes": ["a city at night"]}


def installed(folder: Path, entry_points: str = ENTRY_POINTS, package: str = "attention-output") -> Path:
    """Write what pip leaves of an installed package, but for its modules, and return the folder."""
    about = folder / f"{package.replace('-', '_')}-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(entry_points)
    return folder


def raymap(*args: str | Path, site: Path | None = None) -> str:
    """Run the command line, with the package installed in `site` if there is one, and return what it prints."""
    paths = [*([str(site), str(PLUGINS)] if site else []), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    return finish(raymap_command(*args), env=environment).stdout


@pytest.fixture(scope="session")
def added(shared: Path) -> Path:
    """A run whose study trains its subject by both methods of the package."""
    return made_once(shared / "added", run_added_methods) / "run"


def run_added_methods(folder: Path) -> None:
    site = installed(folder / "site")
    methods = {name: f"embedded-{name}" for name in ADDED}
    study = small_study(folder, methods=methods, prompts=PROMPTS)
    (folder / "run.txt").write_text(raymap("run", study, "--output", folder / "run", site=site))


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package, installed for this process."""
    for path in (PLUGINS, installed(tmp_path / "site")):
        monkeypatch.syspath_prepend(str(path))
    find_method.cache_clear()
    yield
    find_method.cache_clear()


def scores(run: Path) -> pl.DataFrame:
    return pl.concat([pl.read_ipc(path) for path in sorted((run / "scores").glob("*.arrow"))])


def test_added_methods_are_trained_by_their_own_trainers(added: Path) -> None:
    base = load(PIPELINE).unet.state_dict()
    for name, file in (("attention_output", "attention_output"), ("lora_of_values", "pytorch_lora_weights")):
        card = json.loads((added / "adapters" / f"star-cup-{name}" / "adapter.json").read_text())
        assert (card["method"], card["trained_by"], card["phrase"]) == (name, name, "sks cup")
        assert card["recipe"]["steps"] == 4
        assert card["losses"][-1][0] == 4
        assert card["files"] == [f"{file}.safetensors"]
        null = json.loads((added / "adapters" / f"identity-{name}" / "adapter.json").read_text())
        assert (null["method"], null["trained_by"]) == ("identity", name)
    trained = load_file(added / "adapters" / "star-cup-attention_output" / "attention_output.safetensors")
    untrained = load_file(added / "adapters" / "identity-attention_output" / "attention_output.safetensors")
    assert len(trained) == sum(name.endswith("attn2.to_out.0.weight") for name in base) > 0
    for key, weight in trained.items():
        own = base[key.replace(".whole.weight", ".weight")]
        assert untrained[key].equal(own)
        assert not weight.equal(own)
    values = load_file(added / "adapters" / "star-cup-lora_of_values" / "pytorch_lora_weights.safetensors")
    assert {key.split(".lora_")[0].rpartition(".")[2] for key in values} == {"to_v"}


def test_their_images_are_drawn_and_their_null_adapters_give_exactly_zero(added: Path) -> None:
    rows = scores(added)
    assert set(rows["adapter"]) == {f"{subject}-{name}" for subject in ("star-cup", "identity") for name in ADDED}
    assert rows["drawn"].all()
    controls = rows.filter(pl.col("method") == "identity")
    assert controls.height == 2 * 3 * 2
    assert (controls["lpips"] == 0).all()
    assert (controls["clip_base"] == controls["clip_adapted"]).all()
    assert controls["base_sha256"].to_list() == controls["adapted_sha256"].to_list()
    for name in ADDED:
        assert (rows.filter(pl.col("method") == name)["lpips"] > 0).all()


def test_they_are_mapped_and_reported(added: Path) -> None:
    assert set(pl.read_ipc(added / "map.arrow")["method"]) == {*ADDED, "identity"}
    statistics = json.loads((added / "statistics.json").read_text())
    assert {row["method"] for row in statistics["table_1"]} == set(ADDED)
    page = (added / "report" / "index.html").read_text()
    for name in ADDED:
        assert name in page
    drawn = dict(re.findall(r'<title>star-cup-([a-z_]+):.*?<path d="([^"]+)"', page, re.DOTALL))
    assert {name: drawn[name].count("L") for name in ADDED} == {"attention_output": 2, "lora_of_values": 3}


def test_the_resolved_study_names_them_and_is_a_study_again(added: Path, package: None) -> None:
    resolved = yaml.safe_load((added / "study.yaml").read_text())
    assert list(resolved["methods"]) == ["textual_inversion", "lora", "custom_diffusion", *ADDED]
    assert [name for name, recipe in resolved["methods"].items() if recipe] == list(ADDED)
    study = load_study(added.parent / "study.yaml")
    assert list(study.methods) == list(ADDED)
    assert study.model_dump(mode="json")["methods"] == resolved["methods"]


def test_a_run_of_theirs_resumes_and_is_reported_without_the_package(added: Path) -> None:
    held = {path: path.read_bytes() for path in (added / "adapters").rglob("*") if path.is_file()}
    said = raymap("run", added.parent / "study.yaml", "--output", added, site=added.parent / "site")
    assert "training" not in said
    assert {path: path.read_bytes() for path in (added / "adapters").rglob("*") if path.is_file()} == held
    said = raymap("report", added, "--format", "svg")
    assert "star-cup-attention_output" in (added / "report" / "index.html").read_text()


def test_their_adapters_are_brought_along_under_their_names(added: Path, package: None, tmp_path: Path) -> None:
    folders = [added / "adapters" / f"star-cup-{name}" for name in ADDED]
    study = load_study(small_study(tmp_path, subjects=None, adapters=[str(folder) for folder in folders]))
    prepared = prepare(study)
    assert [found.info.method for found in prepared.brought] == list(ADDED)
    bare = tmp_path / "bare.safetensors"
    bare.write_bytes((folders[0] / "attention_output.safetensors").read_bytes())
    read = read_adapter(bare, Base.at(PIPELINE).skeleton)
    assert read.method == "attention_output"
    assert read.adapter.updates.keys() == prepared.brought[0].weights


def test_what_is_planned_for_them_follows_from_their_description(package: None, tmp_path: Path) -> None:
    path = small_study(tmp_path, methods={name: f"embedded-{name}" for name in ADDED}, interventions={"dose": [0, 1]})
    prepared = prepare(load_study(path))
    shapes = Base.at(PIPELINE).skeleton.shapes
    outputs = {name for name in shapes if name.endswith("attn2.to_out.0.weight")}
    order, values = prepared.orders[:2]
    assert order.touched(Base.at(PIPELINE).skeleton) == outputs
    assert order.size(Base.at(PIPELINE).skeleton) == 4 * sum(shapes[name][0] * shapes[name][1] for name in outputs)
    assert values.size(Base.at(PIPELINE).skeleton) == 4 * 4 * sum(
        sum(shape) for name, shape in shapes.items() if name.startswith("unet.") and name.endswith(".to_v.weight")
    )
    assert len(prepared.variants) == 4
    assert order.triggers is None
    assert [marker_of(name) for name in (*ADDED, "lora", "unheard_of")] == ["v", "D", "s", "D"]
    changed = {"methods": {"lora_of_values": {"targets": ["to_vv"]}}, "interventions": None}
    with pytest.raises(InputError, match=r"methods\.lora_of_values: the target 'to_vv' is not a layer"):
        prepare(load_study(small_study(tmp_path, **changed)))


def test_a_dry_run_of_theirs_loads_no_torch(tmp_path: Path) -> None:
    site = installed(tmp_path / "site")
    study = small_study(tmp_path, methods={"attention_output": {"steps": 3}})
    code = (
        "import sys\nfrom raymap.cli import app\napp(standalone_mode=False)\n"
        "assert not {'torch', 'diffusers', 'peft'} & sys.modules.keys(), sorted(sys.modules)"
    )
    paths = os.pathsep.join([str(site), str(PLUGINS), os.environ.get("PYTHONPATH", "")])
    python(code, "run", study, "--dry-run", env=os.environ | {"PYTHONPATH": paths})


def test_a_method_that_no_package_has_is_refused_by_name(added: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"methods\.attention_output: is not a personalization method; use one of"):
        load_study(small_study(tmp_path, methods={"attention_output": {}}))
    folder = added / "adapters" / "star-cup-attention_output"
    with pytest.raises(InputError, match=r"method attention_output: is not known here; install the package"):
        prepare(load_study(small_study(tmp_path, subjects=None, adapters=[str(folder)])))


@pytest.mark.parametrize(
    ("entry_point", "problem"),
    [
        ("attention_output = nowhere:METHOD", "cannot be loaded"),
        ("attention_output = attention_output.methods:LORA_OF_VALUES", "is not a method that may be called"),
        ("attention_output = attention_output.methods:AttentionOutput", "is not a method that may be called"),
    ],
)
def test_a_package_that_is_wrong_is_named_and_stops_nothing_else(
    entry_point: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = installed(tmp_path / "site", f"[raymap.methods]\n{entry_point}\nlora = nowhere:LORA\n")
    for path in (PLUGINS, site):
        monkeypatch.syspath_prepend(str(path))
    find_method.cache_clear()
    assert method_names() == ("textual_inversion", "lora", "custom_diffusion", "attention_output")
    with pytest.raises(InputError, match=rf"method attention_output of attention-output: .*{problem}"):
        load_study(small_study(tmp_path, methods={"attention_output": {}}))
    assert list(load_study(small_study(tmp_path)).methods) == ["lora"]


def test_a_name_that_two_packages_claim_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("one", "other"):
        monkeypatch.syspath_prepend(str(installed(tmp_path / "site", package=package)))
    find_method.cache_clear()
    with pytest.raises(InputError, match=r"method attention_output of (one and other|other and one): is the name of"):
        load_study(small_study(tmp_path, methods={"attention_output": {}}))
