"""Which claims about categories of subjects are tested at all."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from raymap.analysis.hypotheses import hypotheses
from raymap.study.suite import CATEGORIES


@pytest.mark.parametrize(("faces", "styles"), [(1, 1), (5, 1), (1, 5), (2, 2)])
def test_a_claim_between_categories_needs_two_subjects_of_each(faces: int, styles: int) -> None:
    """All cells of a category differ from the other's by more than their spread: pooled, any such claim looks sure."""
    rng = np.random.default_rng(10)
    who = [("face", k) for k in range(faces)] + [("style", k) for k in range(styles)]
    cells = [
        {
            "prompt_id": f"p{p:03d}", "prompt_category": CATEGORIES[p % 6], "adapter": f"{category}-{k}-lora",
            "method": "lora", "subject": f"{category}-{k}", "subject_category": category, "target": False,
            "e_sem": 0.02 + 0.01 * (category == "style") + rng.normal(0, 0.002),
        }
        for p in range(24) for category, k in who
    ]  # fmt: skip
    found: dict[str, Any] = {row["hypothesis"]: row for row in hypotheses(pl.DataFrame(cells))}
    tested = min(faces, styles) > 1
    for name in ("H2", "H2 animals"):
        row = found[name]
        assert row["difference"]["value"] == pytest.approx(0.01, abs=0.003)
        assert (row["p"] is not None) == tested
        assert ("a single" in (row["reason"] or "")) != tested
    assert found["H2"]["pooled"]["p"] < 1e-6
    assert (found["H2"]["p_holm"] is None, found["H2 animals"]["q_bh"] is None) == (not tested, not tested)
