"""The audit: three adapter files of three formats by the real command, its gate, and what CI systems get."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import save_file

from raymap.adapters.read import foreign_card, read_adapter
from raymap.analysis.decide.gate import Limits, judge, parse_limits, shifted
from raymap.analysis.read import read_map, read_noise
from raymap.analysis.reduce import reduce_run
from raymap.base.pipeline import load
from raymap.base.skeleton import skeleton_of
from raymap.display.text import plain
from raymap.driver.prepare import prepare
from raymap.embedded.model import PIPELINE
from raymap.report.gate import flagged, junit, summary, verdicts
from raymap.study.builtin import audit_study
from tests.conftest import alone, raymap_command
from tests.study.test_suites import HOSTILE
from tests.synthetic import write_run

Call = Callable[..., tuple[int, str]]
ADAPTERS = ("ink.safetensors", "cup.pt", "clock=delta.bin")
EXCEEDED = "e_sem=0.0001,e_per=0.99,prompts=99"


def write_adapters(folder: Path) -> None:
    """Write a kohya LoRA, an A1111 Textual Inversion and an Adobe Custom Diffusion that fit the embedded base."""
    noise = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=noise)

    lora: dict[str, torch.Tensor] = {}
    for name, shape in skeleton_of(PIPELINE).shapes.items():
        if name.startswith("unet.") and name.endswith((".to_q.weight", ".to_v.weight")):
            module = "lora_unet_" + name.removeprefix("unet.").removesuffix(".weight").replace(".", "_")
            lora |= {
                f"{module}.lora_down.weight": 0.1 * random(4, shape[1]),
                f"{module}.lora_up.weight": 0.1 * random(shape[0], 4),
                f"{module}.alpha": torch.tensor(4.0),
            }
    header = {"modelspec.license": "CC0-1.0", "consent": "the sitter agreed in writing"}
    save_file(lora, folder / "ink.safetensors", metadata=header)
    inversion = {"string_to_token": {"*": torch.tensor(265)}, "string_to_param": {"*": random(2, 96)}, "name": "<cup>"}
    torch.save(inversion, folder / "cup.pt")
    keys = {
        name: weight.detach() + 0.02 * random(*weight.shape)
        for name, weight in load(PIPELINE).unet.named_parameters()
        if "attn2.to_k.w" in name or "attn2.to_v.w" in name
    }
    torch.save({"unet": keys, "modifier_token": {"<new1>": random(96)}}, folder / "delta.bin")


def audit(*more: str) -> list[str]:
    """Return the audit's command, small: two steps, two seeds, prompts that are hard to handle."""
    given = [word for adapter in ADAPTERS for word in ("--adapter", adapter)]
    small = ["--set", "sampler.steps=2", "--set", "resources.workers=1", "--seeds", "2", "--output", "run"]
    return raymap_command("audit", *given, "--suite", "hostile.jsonl", *small, *more)


@pytest.fixture(scope="module")
def audited(shared: Path) -> Path:
    """A working folder in which three adapters were audited and exceeded a limit."""
    folder = shared / "audit"
    with alone(shared / "audit.lock"):
        if not (folder / "report.xml").exists():
            folder.mkdir()
            write_adapters(folder)
            lines = [json.dumps({"prompt": p, "category": "scenes"}) for p in HOSTILE]
            (folder / "hostile.jsonl").write_text("\n".join(lines))
            command = audit("--fail-above", EXCEEDED, "--junit", "report.xml", "--json", "report.json")
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=400, check=False)
            (folder / "out.txt").write_text(done.stdout)
            assert done.returncode == 1, done.stdout + done.stderr
    return folder


def test_an_audit_shows_its_cost_first_and_names_what_exceeds_a_limit(audited: Path) -> None:
    out = (audited / "out.txt").read_text()
    assert "8 prompts x 2 seeds x 4 models = 64 images, 16 of them proved" in out.splitlines()[0]
    assert "1 identity control = 16 images more, 0 of them proved" in out.splitlines()[0]
    assert "estimate: 64 images to draw" in out
    assert out.index("estimate:") < out.index("drawing")
    assert "0 adapters to train" in out
    assert "p002 is longer than the text encoder reads" in out
    assert "exceeded" in out
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert "[bold red]marked up[/] and [/wrong]" in out


def test_the_summary_for_ci_is_what_the_scores_say(audited: Path) -> None:
    found = json.loads((audited / "report.json").read_text())
    assert found["passed"] is False
    assert found["identity_control"]["exact"] is True
    scores = pl.concat([pl.read_ipc(p.read_bytes()) for p in (audited / "run" / "scores").glob("*.arrow")])
    for adapter in found["adapters"]:
        own = scores.filter(pl.col("adapter") == adapter["adapter"])
        cells = own.group_by("prompt_id").agg(
            e_sem=(pl.col("clip_adapted").cast(pl.Float64) - pl.col("clip_base")).abs().mean(),
            e_per=pl.col("lpips").cast(pl.Float64).mean(),
        )
        for measure in ("e_sem", "e_per"):
            assert adapter[measure]["value"] == pytest.approx(cells[measure].mean(), abs=1e-7)
        e_sem = next(c for c in adapter["criteria"] if c["criterion"] == "e_sem")
        proved = adapter["method"] == "textual_inversion"
        assert e_sem["passed"] is proved
        assert len(e_sem["offenders"]) == (0 if proved else len(HOSTILE))
        assert all(c["passed"] for c in adapter["criteria"] if c["criterion"] != "e_sem")
    assert {a["adapter"]: a["method"] for a in found["adapters"]} == {
        "ink": "lora", "cup": "textual_inversion", "clock": "custom_diffusion",
    }  # fmt: skip


def test_junit_has_a_case_an_adapter_and_limit_and_failures_name_prompts(audited: Path) -> None:
    root = ElementTree.parse(audited / "report.xml").getroot()
    suites = root.findall("testsuite")
    assert len(suites) == 1
    cases = suites[0].findall("testcase")
    assert {(c.get("classname"), str(c.get("name")).split()[0]) for c in cases} == {
        (a, m) for a in ("ink", "cup", "clock") for m in ("e_sem", "e_per", "prompts")
    }
    failures = {c.get("classname"): c.find("failure") for c in cases if c.find("failure") is not None}
    assert set(failures) == {"ink", "clock"}
    assert suites[0].get("tests") == "9"
    assert suites[0].get("failures") == "2"
    for failure in failures.values():
        assert failure is not None
        text = str(failure.text)
        assert len(text.splitlines()) == len(HOSTILE)
        assert all(plain(prompt) in text for prompt in HOSTILE)


def test_the_same_audit_with_wider_limits_draws_nothing_and_passes(audited: Path) -> None:
    """The way of a CI job whose limits were set too tight: exit code 0 from the same folder."""
    ledger = (audited / "run" / "ledger.jsonl").read_bytes()
    command = audit("--fail-above", "e_sem=2,prompts=8")
    done = subprocess.run(command, cwd=audited, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (audited / "run" / "ledger.jsonl").read_bytes() == ledger
    assert "drawing: " not in done.stdout


def test_file_names_hold_ids_and_never_prompts(audited: Path) -> None:
    names = {part for p in (audited / "run" / "images").rglob("*") for part in p.relative_to(audited).parts}
    assert names <= {"run", "images", "base", "ink", "cup", "clock", "identity-lora",
                     *(f"p{k:03d}" for k in range(8)), "0.png", "1.png"}  # fmt: skip


def test_cards_carry_licence_and_consent(audited: Path) -> None:
    card = json.loads((audited / "run" / "adapters" / "ink" / "adapter.json").read_text())
    assert (card["licence"], card["consent"]) == ("CC0-1.0", "the sitter agreed in writing")
    silent = json.loads((audited / "run" / "adapters" / "clock" / "adapter.json").read_text())
    assert (silent["licence"], silent["consent"]) == (None, None)
    read = read_adapter(audited / "ink.safetensors", skeleton_of(PIPELINE))
    assert foreign_card("x", None, None, read, "0" * 64)["licence"] == "CC0-1.0"


def test_a_name_counts_for_a_folder_that_has_a_card_too(audited: Path) -> None:
    held = audited / "run" / "adapters" / "ink"
    prepared = prepare(audit_study("embedded", [str(held), f"second={held}"]))
    assert [found.info.name for found in prepared.brought] == ["ink", "second"]


def test_a_dry_run_says_what_would_be_drawn_and_writes_nothing(audited: Path, tmp_path: Path) -> None:
    command = raymap_command("audit", "--adapter", audited / "ink.safetensors", "--dry-run", "--limit", "6")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "audit-ink: 6 prompts x 4 seeds x 2 models = 48 images" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is not a limit"),
        ("e_sem", "e_sem is ''"),
        ("e_sem=x", "e_sem is 'x'"),
        ("e_sem=nan", "e_sem is 'nan'"),
        ("e_sem=inf", "e_sem is 'inf'"),
        ("e_per=-1", "e_per is '-1'"),
        ("prompts=1.5", "prompts is '1.5'"),
        ("esem=1", "'esem' is not a limit"),
        ("e_sem=1,e_sem=2", "'e_sem' is given twice"),
        ("e_sem=1;e_per=2", "e_sem is"),
    ],
)
def test_a_wrong_limit_is_refused_before_anything_is_read(call: Call, text: str, problem: str) -> None:
    code, err = call("audit", "--adapter", "nowhere.safetensors", "--fail-above", text)
    assert code == 2
    assert problem in err


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--adapter", "nowhere.safetensors"), "nowhere.safetensors"),
        (("--adapter", "x", "--seeds", "1"), "--seeds 1"),
        (("--adapter", "x", "--category", "dog"), "--category"),
        (("--adapter", "x", "--adapter", "y", "--adapter", "z", "--category", "face", "--category", "style"), "2 cat"),
        (("--adapter", "x", "--junit", "x.xml"), "--junit"),
        (("--adapter", "x", "--json", "."), "is a folder"),
        (("--adapter", "x", "--suite", "nowhere"), "no suite"),
        (("--adapter", "x", "--set", "sampler.stepz=3"), "stepz"),
        (("--adapter", "x", "--base", "./nowhere"), "nowhere"),
    ],
)
def test_a_wrong_argument_is_refused_before_anything_is_drawn(
    call: Call, arguments: tuple[str, ...], problem: str
) -> None:
    code, err = call("audit", *arguments)
    assert code == 2
    assert err.count("\n") == 1
    assert problem in err


def test_limits_are_read() -> None:
    assert parse_limits("e_sem=0.03, prompts=3") == Limits(e_sem=0.03, prompts=3)
    assert parse_limits("e_per=1e-2").given == {"e_per": 0.01}


def test_defaults_follow_the_base_and_categories_go_to_adapters_in_order() -> None:
    embedded = audit_study("embedded", ["a.safetensors"])
    assert (len(embedded.prompts), embedded.clip, embedded.lpips, embedded.seeds) == (24, "embedded", "embedded",
                                                                                     (0, 1, 2, 3))  # fmt: skip
    other = audit_study("stable-diffusion-v1-5/stable-diffusion-v1-5", ["a.pt", "b=dir=1/c.pt"], ["face", "style"])
    assert (len(other.prompts), other.clip, other.lpips) == (60, "ViT-L-14/openai", "alex")
    assert [(a.short_name, str(a.path), a.category) for a in other.adapters] == [
        ("a", "a.pt", "face"), ("b", "dir=1/c.pt", "style"),
    ]  # fmt: skip
    assert [a.category for a in audit_study("embedded", ["a.pt", "b.pt"], ["object"]).adapters] == ["object"] * 2


def made_up(folder: Path, k: int, lpips: dict[int, float]) -> pl.DataFrame:
    """Reduce a run of twelve prompts and K seeds in which some prompts' LPIPS is not 0.1, and flag what shifted."""
    values = np.full((12, 1, k), 0.1)
    for prompt, value in lpips.items():
        values[prompt] = value + np.arange(k) / 1000
    write_run(folder, np.zeros((12, 1, k)), values)
    reduce_run(folder)
    return flagged(folder)


def test_with_few_seeds_the_threshold_alone_says_what_shifted(tmp_path: Path) -> None:
    """Four seeds: the smallest p is 1/35, which twelve cells do not let pass; LPIPS between seeds is .50 to .51."""
    cells = made_up(tmp_path, 4, {1: 0.9, 2: 0.7, 3: 0.3})
    assert cells["tested_e_per"].any() is False
    assert set(cells.filter(pl.col("shifted_e_per"))["prompt_id"]) == {"p001", "p002"}
    assert cells["shifted_e_sem"].any() is False


def test_with_enough_seeds_the_test_must_agree(tmp_path: Path) -> None:
    """Ten seeds: the smallest p is 1/286. A mean above τ that one seed alone brings about is no shift."""
    folder = tmp_path / "run"
    values = np.full((12, 1, 10), 0.1)
    values[1] = 0.9 + np.arange(10) / 1000
    values[2, 0, 0] = 9.0
    write_run(folder, np.zeros((12, 1, 10)), values)
    reduce_run(folder)
    cells = flagged(folder)
    assert cells["tested_e_per"].all() is True
    above = cells.filter(pl.col("above_tau_per"))["prompt_id"].to_list()
    assert above == ["p001", "p002"]
    assert cells.filter(pl.col("shifted_e_per"))["prompt_id"].to_list() == ["p001"]


def test_target_prompts_and_controls_do_not_count(tmp_path: Path) -> None:
    shift, lpips = np.zeros((12, 2, 4)), np.full((12, 2, 4), 0.9)
    write_run(tmp_path, shift, lpips, adapters=("face", "other"), subject_categories=("face", "unknown"))
    statistics = reduce_run(tmp_path)
    found = verdicts(flagged(tmp_path), statistics, Limits(prompts=10))
    assert [(v.adapter, v.value, v.of, v.passed) for v in found] == [("face", 10, 10, True), ("other", 12, 12, False)]
    assert {o.shifted_in for o in found[1].offenders} == {("e_per",)}


def test_where_nothing_was_measured_no_limit_is_kept(tmp_path: Path) -> None:
    """An adapter with target prompts only cannot pass by default."""
    shift, lpips = np.zeros((1, 1, 4)), np.full((1, 1, 4), 0.9)
    write_run(tmp_path, shift, lpips, subject_categories=("face",))
    statistics = reduce_run(tmp_path)
    cells = shifted(read_map(tmp_path), pl.read_ipc((tmp_path / "shifts.arrow").read_bytes()), read_noise(tmp_path))
    found = judge(cells, statistics["adapters"], Limits(e_sem=1, e_per=1, prompts=5))
    assert [(v.value, v.passed) for v in found] == [(None, False)] * 3
    assert b"no non-target prompt was measured" in junit(found, "x")
    assert json.loads(summary(cells, statistics, Limits(e_sem=1), found))["passed"] is False
