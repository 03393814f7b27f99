"""The one verdict: three answers, limits with three decisions, reasons to refuse, and one set of words for all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import polars as pl
import pytest

from raymap.analysis.decide.answers import Verdict
from raymap.analysis.decide.limits import AuditLimits, parse_limits
from raymap.analysis.decide.verdict import limits_of, read_verdict, write_verdict
from raymap.analysis.numerics.discoveries import all_but, at_least
from raymap.analysis.reduce import reduce_run
from raymap.report.junit import junit
from raymap.testing.scores import write_scores


def test_limits_are_read() -> None:
    assert parse_limits("e_sem=0.03, prompts=3") == AuditLimits(e_sem=0.03, prompts=3)
    assert parse_limits("falls=0,fall=1e-2,targets=2").given == {"fall": 0.01, "falls": 0, "targets": 2}


def audited(folder: Path, limits: AuditLimits | None = None, *, k: int = 10, fall: Any = 0.0, **more: Any) -> Verdict:
    """Reduce a run of twelve prompts whose base scores spread by about .03 over seeds, and return its verdict.

    Args:
        fall: how far the scores of the prompts fall, one number for all or one each.
    """
    rng = np.random.default_rng(3)
    adapters = len(more.get("adapters", ("one",)))
    shift = rng.normal(0, 0.005, (12, adapters, k)) - np.broadcast_to(fall, (12,))[:, None, None]
    write_scores(folder, shift, rng.normal(0.3, 0.01, shift.shape), **more)
    reduce_run(folder)
    return write_verdict(folder, limits or AuditLimits())


def decisions(verdict: Verdict) -> dict[str, str]:
    return {held["limit"]: held["decision"] for held in verdict["adapters"][0]["limits"]}


def test_prompts_that_stay_within_their_margins_keep_every_limit(tmp_path: Path) -> None:
    found = audited(tmp_path, AuditLimits(prompts=0, falls=0, fall=0.01, e_sem=0.03, e_per=0.5))
    assert found["decision"] == "pass"
    assert set(decisions(found).values()) == {"pass"}
    one = found["adapters"][0]
    assert (one["answer"], one["others"]["unchanged"], one["others"]["shifted_at_least"]) == ("unchanged", 12, 0)
    assert found["headline"].startswith("PASS. Every limit is kept.")
    assert "Unchanged within the margin: all 12 non-target prompts." in found["headline"]


def test_falls_exceed_their_limits_and_are_named_with_their_evidence(tmp_path: Path) -> None:
    """With ten seeds the exact sign flips find the falls, too, and the verdict says so."""
    falls = np.r_[np.full(3, 0.3), np.zeros(9)]
    found = audited(tmp_path, AuditLimits(prompts=2, falls=5, fall=0.3), fall=falls)
    assert found["decision"] == "fail"
    assert decisions(found) == {"prompts": "fail", "falls": "pass", "fall": "pass"}
    one = found["adapters"][0]
    assert (one["others"]["fell"], one["others"]["rose"], one["others"]["shifted_at_least"]) == (3, 0, 3)
    shifted = one["others"]["shifted_prompts"]
    assert {p["prompt_id"] for p in shifted} == {"p000", "p001", "p002"}
    assert all(p["ways"] == ["fell"] and p["seeds"] == 10 and "sign flips" in p["tests"] for p in shifted)
    assert "Shifted: 3 of 12 non-target prompts (3 fell), at least 3 with 95 % confidence" in one["sentence"]
    held = next(held for held in one["limits"] if held["limit"] == "prompts")
    assert held["message"] in junit(found, "x", {}).decode()
    assert sorted(held["look"]) == ["p000", "p001", "p002"]


def test_a_rise_is_a_shift_but_no_fall(tmp_path: Path) -> None:
    rises = np.r_[np.full(3, -0.3), np.zeros(9)]
    found = audited(tmp_path, AuditLimits(prompts=0, falls=0, fall=0), fall=rises)
    assert decisions(found) == {"prompts": "fail", "falls": "pass", "fall": "undecided"}
    assert found["adapters"][0]["others"]["rose"] == 3


def test_what_a_few_seeds_cannot_tell_is_undecided_and_never_zero(tmp_path: Path) -> None:
    found = audited(tmp_path, AuditLimits(prompts=0), k=3, fall=0.032)
    assert found["decision"] == "undecided"
    one = found["adapters"][0]
    assert one["answer"] == "cannot tell"
    assert one["others"]["cannot_tell"] > 0
    assert found["headline"].startswith("UNDECIDED. These seeds cannot tell whether adapter-0 keeps its limits.")
    assert "Cannot tell: of 12 non-target prompts none is shown to have shifted" in one["sentence"]
    root = ElementTree.fromstring(junit(found, "x", {}))
    assert (root.get("failures"), root.get("errors")) == ("0", "1")


def test_the_bounds_of_a_count_are_those_of_the_tests(tmp_path: Path) -> None:
    falls = np.r_[np.full(4, 0.08), np.zeros(8)]
    found = audited(tmp_path, AuditLimits(prompts=3), k=4, fall=falls)
    changes = pl.read_ipc((tmp_path / "changes.arrow").read_bytes())
    held = found["adapters"][0]["limits"][0]
    assert held["low"] == at_least(changes["p_shifted"].to_numpy(), 0.05)
    p = changes["p_unchanged"].to_numpy()
    assert held["high"] == min(m for m in range(13) if all_but(p, m) <= 0.05)
    assert held["low"] <= (held["value"] or 0) <= held["high"]


def test_target_prompts_are_reported_apart_with_a_limit_of_their_own(tmp_path: Path) -> None:
    falls = np.zeros(12)
    falls[[0, 6]] = 0.3  # people, which face adapters are meant to change
    limits = AuditLimits(prompts=0, targets=1)
    found = audited(tmp_path, limits, fall=falls, adapters=("face",), subject_categories=("face",))
    assert decisions(found) == {"prompts": "pass", "targets": "fail"}
    one = found["adapters"][0]
    assert (one["others"]["prompts"], one["targets"]["prompts"], one["targets"]["fell"]) == (10, 2, 2)
    assert "Target prompts, apart: 2 of 2 shifted (2 fell)" in one["sentence"]


def test_an_average_beyond_the_margin_is_a_shift_even_if_no_prompt_is_sure(tmp_path: Path) -> None:
    """Two seeds: every prompt falls by about three of its own standard deviations, by more or less."""
    rng = np.random.default_rng(8)
    shift = -0.12 + rng.normal(0, 0.08, (12, 1, 2))
    write_scores(tmp_path, shift, np.full(shift.shape, 0.3))
    reduce_run(tmp_path)
    one = write_verdict(tmp_path, AuditLimits(prompts=0))["adapters"][0]
    assert one["others"]["shifted"] == 0
    assert (one["in_margins"]["high"] or 0) < -1
    assert "Shifted on average by more than the margin" in one["sentence"]
    assert one["answer"] == "shifted"
    assert one["limits"][0]["decision"] == "fail"


def without_noise(folder: Path) -> None:
    path = folder / "noise.arrow"
    rows = pl.read_ipc(path.read_bytes())
    rows.clear().write_ipc(path)


def test_without_a_noise_floor_nothing_passes(tmp_path: Path) -> None:
    audited(tmp_path)
    without_noise(tmp_path)
    reduce_run(tmp_path)
    found = write_verdict(tmp_path, AuditLimits(prompts=0, e_sem=0.9))
    assert found["decision"] == "undecided"
    assert "there is no noise floor" in found["refused"][0]
    assert found["adapters"][0]["answer"] == "cannot tell"
    assert "No verdict: there is no noise floor" in found["headline"]


def test_a_control_that_is_not_zero_refuses_a_verdict(tmp_path: Path) -> None:
    names: dict[str, Any] = {
        "adapters": ("one", "identity-lora"),
        "methods": ("lora", "identity"),
        "subjects": ("one", "identity"),
    }
    found = audited(tmp_path, AuditLimits(prompts=12), fall=0.3, subject_categories=("style", "control"), **names)
    assert "identity control is not zero" in found["refused"][0]
    assert found["decision"] == "undecided"
    assert (found["adapters"][0]["answer"], found["adapters"][0]["others"]["shifted"]) == ("cannot tell", 0)


def test_one_seed_refuses_and_two_seeds_are_noted(tmp_path: Path) -> None:
    assert "single seed" in audited(tmp_path / "1", k=1)["refused"][0]
    two = audited(tmp_path / "2", AuditLimits(falls=0), k=2, fall=0.3)
    assert any("Two seeds give a single pair" in note for note in two["notes"])
    assert two["decision"] == "fail"


def test_where_nothing_was_measured_no_limit_is_kept(tmp_path: Path) -> None:
    """An adapter with target prompts only cannot pass by default."""
    shift = np.zeros((1, 1, 4))
    write_scores(tmp_path, shift, np.full((1, 1, 4), 0.9), subject_categories=("face",))
    reduce_run(tmp_path)
    found = write_verdict(tmp_path, AuditLimits(e_sem=1, e_per=1, prompts=5))
    assert found["decision"] == "undecided"
    assert {held["value"] for held in found["adapters"][0]["limits"]} == {None}
    assert "no non-target prompt was measured" in found["adapters"][0]["sentence"]


def test_limits_stay_with_the_folder_and_older_folders_get_their_verdict(tmp_path: Path) -> None:
    found = audited(tmp_path, AuditLimits(prompts=3))
    reduce_run(tmp_path)
    assert read_verdict(tmp_path) == found
    assert limits_of(tmp_path) == AuditLimits(prompts=3)
    for name in ("verdict.json", "changes.arrow"):
        (tmp_path / name).unlink()
    older = read_verdict(tmp_path)
    assert older["adapters"][0]["others"] == found["adapters"][0]["others"]
    assert older["limits"] == {}
    assert json.loads(json.dumps(older, allow_nan=False))["schema"] == 1


@pytest.mark.parametrize("name", ["verdict.json", "changes.arrow"])
def test_the_same_scores_give_the_same_bytes(tmp_path: Path, name: str) -> None:
    audited(tmp_path)
    before = (tmp_path / name).read_bytes()
    reduce_run(tmp_path)
    assert (tmp_path / name).read_bytes() == before
