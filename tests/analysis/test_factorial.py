"""Composition against abstractness: the suite is balanced, and planted effects are found, by name and sign."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from scipy import stats

from raymap.analysis.why.factorial import KINDS, MAKES, SUITE, factorial, read_design, reduce_factorial
from raymap.embedded.world.captioned import sample
from raymap.errors import InputError
from raymap.store.folder import arrow_bytes
from raymap.store.schema import MAP
from raymap.study.subject import OWN_CATEGORY
from raymap.study.suite import read_suite


def test_the_suite_fills_the_design_evenly_in_the_world_s_language() -> None:
    prompts = read_suite(SUITE, "test", Path())
    design = read_design()
    assert [p.text for p in prompts] == list(design)
    assert Counter(design.values()) == {(kind, make): 12 for kind in KINDS for make in MAKES}
    assert {p.category for p in prompts}.isdisjoint(OWN_CATEGORY.values())
    rng = np.random.default_rng(0)
    words = {word for _ in range(4000) for word in sample(rng, held_out=None).caption.split()}
    assert not {word for p in prompts for word in p.text.split()} - words


def planted(composition: float, abstractness: float, interaction: float, subjects: int = 6) -> pl.DataFrame:
    """Cells whose means have given effects, and noise of prompts and cells."""
    rng = np.random.default_rng(0)
    rows = []
    for k, (text, (kind, make)) in enumerate(read_design().items()):
        a, c = (1 if kind == "abstract" else -1) / 2, (1 if make == "compositional" else -1) / 2
        mean = 0.05 + rng.normal(0, 0.001) + abstractness * a + composition * c + interaction * a * c
        for s in range(subjects):
            value = mean + rng.normal(0, 0.001)
            rows.append(
                {"prompt_id": f"p{k:03d}", "prompt": text, "prompt_category": "animals", "adapter": f"s{s}-lora",
                 "method": "lora", "subject": f"s{s}", "subject_category": "object", "target": False, "e_sem": value,
                 "e_sem_signed": 0.0, "e_per": 2 * value, "n_seeds": 2, "above_tau_sem": False, "above_tau_per": False}
            )  # fmt: skip
    return pl.DataFrame(rows, schema=pl.DataFrame(MAP.empty_table()).schema)


@pytest.mark.parametrize(
    ("effects", "words"),
    [
        ((0.02, 0.0, 0.0), ["compositions shift more, as the claim has it", "no interaction is seen"]),
        ((-0.02, 0.0, 0.0), ["compositions shift less: the claim fails"]),
        ((0.0, 0.02, 0.0), ["the claim is not supported", "abstract prompts shift more"]),
        ((0.0, 0.0, 0.03), ["composition raises abstract prompts more (or lowers them less) than concrete ones"]),
        # It lowers concrete prompts by .04 and abstract ones by .01: the interaction is positive, the effects are not.
        ((-0.025, 0.0, 0.03), ["compositions shift less", "raises abstract prompts more (or lowers them less)"]),
        ((0.025, 0.0, -0.03), ["compositions shift more", "raises abstract prompts less (or lowers them more)"]),
    ],
)
def test_planted_effects_are_found_and_the_claim_can_fail(
    effects: tuple[float, float, float], words: list[str]
) -> None:
    found = factorial(planted(*effects), read_design())
    named = dict(zip(("composition", "abstractness", "interaction"), effects, strict=True))
    for row in found["contrasts"]:
        factor = 1 if row["measure"] == "e_sem" else 2
        found_one: Any = row["estimate"]
        assert found_one["low"] < factor * named[row["contrast"]] < found_one["high"]
        assert found_one["value"] == pytest.approx(factor * named[row["contrast"]], abs=0.002 * factor)
    text = " ".join(line for line in found["reading"] if line.startswith("E_sem"))
    for phrase in words:
        assert phrase in text


def test_the_interaction_is_that_of_a_textbook_with_one_subject() -> None:
    """With one subject, prompts alone are random: Welch's contrast of four means."""
    cells = planted(0.01, 0.0, 0.02, subjects=1)
    rows = factorial(cells, read_design())["contrasts"]
    row = next(r["estimate"] for r in rows if r["contrast"] == "interaction" and r["measure"] == "e_sem")
    design = read_design()
    values = {key: cells.filter(pl.col("prompt").is_in([t for t, f in design.items() if f == key]))["e_sem"].to_numpy()
              for key in set(design.values())}  # fmt: skip
    mean = {key: v.mean() for key, v in values.items()}
    expected = (mean["abstract", "compositional"] - mean["abstract", "simple"]) - (
        mean["concrete", "compositional"] - mean["concrete", "simple"]
    )
    variances = np.array([v.var(ddof=1) / len(v) for v in values.values()])
    df = variances.sum() ** 2 / (variances**2 / 11).sum()
    assert row["value"] == pytest.approx(expected)
    assert row["p"] == pytest.approx(2 * stats.t.sf(abs(expected) / variances.sum() ** 0.5, df))


def test_a_run_of_other_prompts_is_refused(tmp_path: Path) -> None:
    cells = planted(0, 0, 0).filter(pl.col("prompt") == "a brown bear")
    (tmp_path / "map.arrow").write_bytes(arrow_bytes(cells.to_arrow().cast(pa.schema(MAP))))
    with pytest.raises(InputError, match="suite: embedded-factorial"):
        reduce_factorial(tmp_path)


def test_a_run_of_the_suite_gets_its_test(tmp_path: Path) -> None:
    (tmp_path / "map.arrow").write_bytes(arrow_bytes(planted(0.02, 0, 0).to_arrow().cast(pa.schema(MAP))))
    found = reduce_factorial(tmp_path)
    assert len(found["cells"]) == 2 * 2 * 4
    assert (tmp_path / "factorial.json").exists()
