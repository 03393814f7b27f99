"""Two runs side by side: differences and tests against scipy's, pairs that are pairs, and refusals with reasons."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from raymap.analysis.decide.compare import compare_runs
from raymap.analysis.numerics.crossed import Group, contrast
from raymap.errors import InputError
from raymap.study.suite import CATEGORIES
from raymap.testing.scores import write_scores

STUDY: dict[str, Any] = {
    "base": "embedded",
    "sampler": {"steps": 20, "guidance_scale": 5.0},
    "protocol": "plain",
    "clip": "embedded",
    "lpips": "embedded",
}
P, K = 12, 6


def values(adapters: int = 1, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return shifts of both signs and LPIPS, as float32 holds them."""
    rng = np.random.default_rng(seed)
    shape = (P, adapters, K)
    return rng.normal(0, 0.02, shape).astype(np.float32), rng.random(shape).astype(np.float32)


def test_an_adapters_difference_is_the_paired_t_test_over_prompts(tmp_path: Path) -> None:
    one, other = values(seed=1), values(seed=2)
    other = (other[0] * 1.5, other[1])
    found = compare_runs(write_scores(tmp_path / "a", *one), write_scores(tmp_path / "b", *other))
    assert (found.prompts, found.seeds, found.overall) == (P, K, None)
    means = {
        "e_sem": [np.abs(v[0]).mean(axis=2)[:, 0] for v in (one, other)],
        "e_sem_signed": [v[0].mean(axis=2)[:, 0] for v in (one, other)],
        "e_per": [v[1].mean(axis=2)[:, 0] for v in (one, other)],
    }
    row: Any = found.adapters[0]
    p_values = []
    for measure, (before, after) in means.items():
        known = stats.ttest_rel(after, before)
        interval = known.confidence_interval(0.95)
        got = row[measure]
        assert (got["before"], got["after"]) == pytest.approx((before.mean(), after.mean()), abs=1e-7)
        assert got["value"] == pytest.approx((after - before).mean(), abs=1e-7)
        assert (got["low"], got["high"]) == pytest.approx((interval.low, interval.high), abs=1e-6)
        assert got["p"] == pytest.approx(known.pvalue, rel=1e-3)
        p_values.append(got["p"])
    smallest = int(np.argmin(p_values))
    assert row[list(means)[smallest]]["p_holm"] == pytest.approx(min(1, 3 * p_values[smallest]))


def test_single_prompts_are_tested_by_sign_flips_over_their_seeds(tmp_path: Path) -> None:
    one, other = values(seed=3), values(seed=4)
    found = compare_runs(write_scores(tmp_path / "a", *one), write_scores(tmp_path / "b", *other))
    cells = found.cells.sort("prompt_id")
    for measure, before, after in (("e_sem", np.abs(one[0]), np.abs(other[0])), ("e_per", one[1], other[1])):
        p_values = []
        for p in range(P):
            differences = (after - before)[p, 0].astype(np.float64)
            known = stats.permutation_test(
                (differences,), lambda x, axis: x.mean(axis), permutation_type="samples", vectorized=True,
                n_resamples=np.inf,
            )  # fmt: skip
            p_values.append(known.pvalue)
        assert cells[f"p_{measure}"].to_list() == pytest.approx(p_values)
        assert cells[f"q_{measure}"].to_list() == pytest.approx(stats.false_discovery_control(p_values).tolist())


def test_over_several_adapters_prompts_and_subjects_are_crossed(tmp_path: Path) -> None:
    one, other = values(3, seed=5), values(3, seed=6)
    found = compare_runs(write_scores(tmp_path / "a", *one), write_scores(tmp_path / "b", *other))
    difference = np.abs(other[0]).mean(axis=2).astype(np.float64) - np.abs(one[0]).mean(axis=2)
    known = contrast(difference, (Group(np.arange(P)),), (Group(np.arange(3)),))
    assert found.overall is not None
    got = found.overall["e_sem"]
    assert (got["value"], got["low"], got["high"]) == pytest.approx((known.value, known.low, known.high), abs=1e-7)
    assert "between subjects" in got["method"]
    assert len(found.adapters) == 3


@pytest.mark.parametrize("subjects", [("a", "b", "c"), ("a", "a", "c")], ids=["three subjects", "two of one subject"])
def test_over_all_adapters_the_difference_is_after_minus_before(tmp_path: Path, subjects: tuple[str, ...]) -> None:
    """Prompt p is of category p mod 6, so that each category of subjects has targets of its own among them."""
    categories = ("face", "face", "style")
    labels: dict[str, Any] = {
        "subjects": subjects,
        "subject_categories": categories,
        "methods": ("lora", "custom_diffusion", "lora"),
    }
    one, other = values(3, seed=11), values(3, seed=12)
    found = compare_runs(write_scores(tmp_path / "a", *one, **labels), write_scores(tmp_path / "b", *other, **labels))
    kept = [p for p in range(P) if CATEGORIES[p % 6] not in ("people", "styles")]
    assert 0 < len(kept) < P
    overall: Any = found.overall
    for measure, k in (("e_sem", 0), ("e_sem_signed", 0), ("e_per", 1)):
        got = overall[measure]
        assert got["n"] == len(kept)
        assert got["after"] - got["before"] == pytest.approx(got["value"], abs=1e-12)
        for end, side in (("before", one), ("after", other)):
            drawn = np.abs(side[k]) if measure == "e_sem" else side[k]
            cells = drawn[kept].astype(np.float64).mean(axis=(0, 2))
            by_subject = [cells[[s == name for s in subjects]].mean() for name in sorted(set(subjects))]
            assert got[end] == pytest.approx(np.mean(by_subject), abs=1e-6)


def test_what_changed_is_listed_worst_first_and_what_did_not_is_not(tmp_path: Path) -> None:
    shift, lpips = np.full((P, 1, K), 0.01), np.full((P, 1, K), 0.3)
    changed = shift.copy()
    changed[2], changed[5], changed[7] = 0.09, 0.05, 0.001
    found = compare_runs(write_scores(tmp_path / "a", shift, lpips), write_scores(tmp_path / "b", changed, lpips))
    assert found.worse()["prompt_id"].to_list() == ["p002", "p005"]
    assert found.better()["prompt_id"].to_list() == ["p007"]
    assert found.cells.filter(found.cells["prompt_id"] == "p000")["p_e_sem"].item() == 1.0


def test_only_seeds_that_both_have_are_paired(tmp_path: Path) -> None:
    one, other = values(seed=7), values(seed=8)
    write_scores(tmp_path / "a", *one, seeds=(0, 1, 2, 3, 4, 5))
    write_scores(tmp_path / "b", *other, seeds=(3, 4, 5, 6, 7, 8))
    found = compare_runs(tmp_path / "a", tmp_path / "b")
    assert found.seeds == 3
    expected = np.abs(other[0][:, 0, :3]).mean() - np.abs(one[0][:, 0, 3:]).mean()
    assert found.adapters[0]["e_sem"]["value"] == pytest.approx(expected, abs=1e-7)


def test_without_a_common_seed_prompts_are_paired_and_not_tested_singly(tmp_path: Path) -> None:
    one, other = values(seed=9), values(seed=10)
    write_scores(tmp_path / "a", *one, study=STUDY)
    write_scores(tmp_path / "b", *other, study=STUDY, seeds=tuple(range(10, 16)))
    found = compare_runs(tmp_path / "a", tmp_path / "b")
    assert found.seeds == 0
    assert found.cells["p_e_sem"].null_count() == P
    known = stats.ttest_rel(np.abs(other[0]).mean(axis=2)[:, 0], np.abs(one[0]).mean(axis=2)[:, 0])
    assert found.adapters[0]["e_sem"]["p"] == pytest.approx(known.pvalue, rel=1e-3)


def test_prompts_are_matched_by_text_where_studies_tell_it(tmp_path: Path) -> None:
    """The second run has the first one's prompts in another order, of which the ids know nothing."""
    shift, lpips = values(seed=11)
    texts = tuple(f"a thing numbered {p}" for p in range(P))
    order = [(p + 6) % P for p in range(P)]  # keeps each prompt's category
    write_scores(tmp_path / "a", shift, lpips, texts=texts, study=STUDY)
    write_scores(tmp_path / "b", shift[order], lpips[order], texts=tuple(texts[p] for p in order), study=STUDY)
    found = compare_runs(tmp_path / "a", tmp_path / "b")
    assert found.prompts == P
    assert found.cells["e_sem"].abs().max() == 0


def test_a_prompt_that_is_target_in_either_run_is_left_out(tmp_path: Path) -> None:
    shift, lpips = values(seed=12)
    write_scores(tmp_path / "a", shift, lpips, subject_categories=("face",))
    write_scores(tmp_path / "b", shift, lpips, subject_categories=("style",))
    found = compare_runs(tmp_path / "a", tmp_path / "b")
    assert set(found.cells["prompt_category"]) == {"animals", "objects", "scenes", "abstract"}


def test_single_adapters_of_other_names_are_matched_and_lone_ones_named(tmp_path: Path) -> None:
    write_scores(tmp_path / "a", *values(), adapters=("first",))
    write_scores(tmp_path / "b", *values(), adapters=("second",))
    write_scores(tmp_path / "c", *values(2), adapters=("first", "third"))
    assert compare_runs(tmp_path / "a", tmp_path / "b").adapters[0]["adapter"] == "first → second"
    found = compare_runs(tmp_path / "a", tmp_path / "c")
    assert [row["adapter"] for row in found.adapters] == ["first"]
    assert found.alone == ((), ("third",))
    with pytest.raises(InputError, match=r"no adapter has the same name or subject.*NAME=PATH"):
        compare_runs(tmp_path / "b", tmp_path / "c")


def test_two_methods_are_compared_by_subject(tmp_path: Path) -> None:
    one, other = values(3, seed=20), values(3, seed=21)
    names = [tuple(f"{subject}-{method}" for subject in ("cup", "dog", "ink")) for method in ("lora", "ti")]
    write_scores(tmp_path / "a", *one, adapters=names[0], subjects=("cup", "dog", "ink"))
    write_scores(tmp_path / "b", *other, adapters=names[1], subjects=("cup", "dog", "ink"))
    found = compare_runs(tmp_path / "a", tmp_path / "b")
    assert [row["adapter"] for row in found.adapters] == ["cup-lora → cup-ti", "dog-lora → dog-ti", "ink-lora → ink-ti"]
    assert found.overall is not None
    known = np.abs(other[0]).mean() - np.abs(one[0]).mean()
    assert found.overall["e_sem"]["value"] == pytest.approx(known, abs=1e-7)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"image": "other"}, "base images differ"),
        ({"image": "other", "study": {**STUDY, "base": "elsewhere"}}, r"base 'embedded' and 'elsewhere'"),
        ({"image": "other", "study": {**STUDY, "sampler": {"steps": 5}}}, r"sampler .*'steps': 20.*'steps': 5"),
        ({"texts": tuple(f"unheard of {p}" for p in range(P))}, "no prompt in common"),
        ({"seeds": tuple(range(10, 16)), "study": None}, "no seed in common, and no study"),
        (
            {"seeds": tuple(range(10, 16)), "study": {**STUDY, "clip": "ViT-L-14/openai"}},
            r"drawn with different settings; clip ",
        ),
    ],
)
def test_runs_that_cannot_be_compared_are_refused_with_the_reason(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    write_scores(tmp_path / "a", *values(), study=STUDY)
    write_scores(tmp_path / "b", *values(), **{"study": STUDY, **changes})
    with pytest.raises(InputError, match=f"cannot be compared.*{reason}"):
        compare_runs(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize(("judge", "factor"), [("clip_base", 0.5), ("e_per", 0.5)])
def test_other_judges_of_the_same_images_are_noticed(tmp_path: Path, judge: str, factor: float) -> None:
    """Folders with scores and noise alone name no judge; what one says of the same base images tells."""
    import polars as pl

    write_scores(tmp_path / "a", *values())
    write_scores(tmp_path / "b", *values())
    path = tmp_path / "b" / ("scores/00000-all.arrow" if judge == "clip_base" else "noise.arrow")
    pl.read_ipc(path.read_bytes()).with_columns(pl.col(judge) * factor).write_ipc(path)
    name = "CLIP" if judge == "clip_base" else "LPIPS"
    with pytest.raises(InputError, match=f"their {name} .*differ"):
        compare_runs(tmp_path / "a", tmp_path / "b")


def test_the_command_prints_differences_and_prompts_safely(
    tmp_path: Path, call: Callable[..., tuple[int, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    shift, lpips = np.full((P, 1, K), 0.01), np.full((P, 1, K), 0.3)
    texts = ("[red]x[/red] \x1b[31m", *(f"prompt {p}" for p in range(1, P)))
    changed = shift.copy()
    changed[0] = 0.08
    write_scores(tmp_path / "a", shift, lpips, texts=texts, study=STUDY)
    write_scores(tmp_path / "b", changed, lpips, texts=texts, study=STUDY)
    from raymap.cli.audit import compare

    compare(str(tmp_path / "a"), str(tmp_path / "b"))
    out = capsys.readouterr().out
    assert "12 non-target prompts and 6 seeds in common" in out
    assert "[red]x[/red]" in out
    assert "\x1b" not in out
    assert "+0.0700" in out
    code, err = call("compare", tmp_path / "a", tmp_path / "nowhere")
    assert code == 2
    assert "nowhere" in err


def test_settings_that_leave_base_images_alone_are_named(tmp_path: Path) -> None:
    write_scores(tmp_path / "a", *values(), study=STUDY)
    write_scores(tmp_path / "b", *values(), study={**STUDY, "protocol": "triggered"})
    assert compare_runs(tmp_path / "a", tmp_path / "b").settings == ("protocol 'plain' and 'triggered'",)
