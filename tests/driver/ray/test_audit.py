"""The audit: three adapter files of three formats by the real command, its verdict, and what CI systems get."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import polars as pl
import pytest
import torch
from safetensors.torch import save_file

from raymap.adapters.read import foreign_card, read_adapter
from raymap.base.model import Base
from raymap.base.pipeline import load
from raymap.display.text import plain
from raymap.driver.prepare import prepare
from raymap.embedded.model import PIPELINE
from raymap.study.builtin import audit_study
from tests.commands import Ended, finish, raymap_command
from tests.hostile_prompts import HOSTILE
from tests.once import made_once

ADAPTERS = ("ink.safetensors", "cup.pt", "clock=delta.bin")
EXCEEDED = "e_sem=0.0001,e_per=0.99,prompts=99"


def write_adapters(folder: Path) -> None:
    """Write a kohya LoRA, an A1111 Textual Inversion and an Adobe Custom Diffusion that fit the embedded base."""
    noise = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=noise)

    lora: dict[str, torch.Tensor] = {}
    for name, shape in Base.at(PIPELINE).skeleton.shapes.items():
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
    """Return the words of a small audit: two steps, two seeds, prompts that are hard to handle."""
    given = [word for adapter in ADAPTERS for word in ("--adapter", adapter)]
    small = ["--set", "sampler.steps=2", "--set", "resources.workers=1", "--seeds", "2", "--output", "run"]
    return ["audit", *given, "--suite", "hostile.jsonl", *small, *more]


@pytest.fixture(scope="session")
def audited(shared: Path) -> Path:
    """A working folder in which three adapters were audited and exceeded a limit."""

    def make(folder: Path) -> None:
        folder.mkdir()
        write_adapters(folder)
        lines = [json.dumps({"prompt": prompt, "category": "scenes"}) for prompt in HOSTILE]
        (folder / "hostile.jsonl").write_text("\n".join(lines))
        more = ("--fail-above", EXCEEDED, "--junit", "report.xml", "--json", "report.json")
        done = finish(raymap_command(*audit(*more)), code=1, cwd=folder)
        (folder / "out.txt").write_text(done.stdout)

    return made_once(shared / "audit", make)


def test_an_audit_shows_its_cost_first_and_names_what_exceeds_a_limit(audited: Path) -> None:
    out = (audited / "out.txt").read_text()
    assert "8 prompts x 2 seeds x 4 models = 64 images, 16 of them proved" in out.splitlines()[0]
    assert "1 identity control = 16 more images, 0 of them proved" in out.splitlines()[0]
    assert "estimate: 64 images to draw" in out
    assert out.index("estimate:") < out.index("drawing")
    assert "0 adapters to train" in out
    assert "p002 is longer than the text encoder reads" in out
    assert "FAIL. A limit is exceeded by" in " ".join(out.split())
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert "[bold red]marked up[/] and [/wrong]" in out


def test_the_verdict_for_ci_is_what_the_scores_say(audited: Path) -> None:
    found = json.loads((audited / "report.json").read_text())
    assert found == json.loads((audited / "run" / "verdict.json").read_text())
    assert (found["decision"], found["refused"]) == ("fail", [])
    scores = pl.concat([pl.read_ipc(p.read_bytes()) for p in (audited / "run" / "scores").glob("*.arrow")])
    for adapter in found["adapters"]:
        own = scores.filter(pl.col("adapter") == adapter["adapter"])
        cells = own.group_by("prompt_id").agg(
            e_sem=(pl.col("clip_adapted").cast(pl.Float64) - pl.col("clip_base")).abs().mean(),
            e_per=pl.col("lpips").cast(pl.Float64).mean(),
        )
        for measure in ("e_sem", "e_per"):
            assert adapter[measure]["value"] == pytest.approx(cells[measure].mean(), abs=1e-7)
        e_sem = next(held for held in adapter["limits"] if held["limit"] == "e_sem")
        proved = adapter["method"] == "textual_inversion"
        assert adapter["by_proof"] is proved
        assert e_sem["decision"] == ("pass" if proved else "fail")
        assert len(e_sem["look"]) == len(HOSTILE)
        assert all(held["decision"] == "pass" for held in adapter["limits"] if held["limit"] == "prompts")
    assert {a["adapter"]: a["method"] for a in found["adapters"]} == {
        "ink": "lora", "cup": "textual_inversion", "clock": "custom_diffusion",
    }  # fmt: skip


def test_junit_has_a_case_per_adapter_and_limit_and_failures_name_prompts(audited: Path) -> None:
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


def test_the_same_audit_with_wider_limits_draws_nothing_and_passes(
    audited: Path, command: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way of a CI job whose limits were set too tight: exit code 0 from the same folder."""
    ledger = (audited / "run" / "ledger.jsonl").read_bytes()
    monkeypatch.chdir(audited)
    ended = command(*audit("--fail-above", "e_sem=2,prompts=8"))
    assert ended.code == 0, ended.out + ended.err
    assert (audited / "run" / "ledger.jsonl").read_bytes() == ledger
    assert "drawing: " not in ended.out


def test_file_names_hold_ids_and_never_prompts(audited: Path) -> None:
    names = {part for p in (audited / "run" / "images").rglob("*") for part in p.relative_to(audited).parts}
    assert names <= {"run", "images", "base", "ink", "cup", "clock", "identity-lora",
                     *(f"p{k:03d}" for k in range(8)), "0.png", "1.png"}  # fmt: skip


def test_cards_carry_licence_and_consent(audited: Path) -> None:
    card = json.loads((audited / "run" / "adapters" / "ink" / "adapter.json").read_text())
    assert (card["licence"], card["consent"]) == ("CC0-1.0", "the sitter agreed in writing")
    silent = json.loads((audited / "run" / "adapters" / "clock" / "adapter.json").read_text())
    assert (silent["licence"], silent["consent"]) == (None, None)
    read = read_adapter(audited / "ink.safetensors", Base.at(PIPELINE).skeleton)
    assert foreign_card("x", None, None, read, "0" * 64)["licence"] == "CC0-1.0"


def test_a_name_counts_for_a_folder_that_has_a_card_too(audited: Path) -> None:
    held = audited / "run" / "adapters" / "ink"
    prepared = prepare(audit_study("embedded", [str(held), f"second={held}"]))
    assert [found.info.name for found in prepared.brought] == ["ink", "second"]


def test_a_dry_run_says_what_would_be_drawn_and_writes_nothing(
    audited: Path, tmp_path: Path, command: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = command("audit", "--adapter", audited / "ink.safetensors", "--dry-run", "--limit", "6")
    assert ended.code == 0, ended.err
    assert "audit-ink: 6 prompts x 4 seeds x 2 models = 48 images" in ended.out
    assert list(tmp_path.iterdir()) == []
