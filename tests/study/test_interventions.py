"""Interventions: what a study asks for, what is drawn, and what follows from it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from raymap.adapters.derived import derived, extent_of
from raymap.adapters.resident import weights_of
from raymap.adapters.update import Adapter, LowRank, Replacement
from raymap.analysis.why.interventions import checks, summarize
from raymap.analysis.why.responses import against_random, compare_methods, dose_response, parts_and_whole, reading
from raymap.base.families.stable_diffusion import STABLE_DIFFUSION as SD
from raymap.base.pipeline import load
from raymap.embedded.model import PIPELINE
from raymap.errors import InputError
from raymap.store.schema import INTERVENTIONS, MAP
from raymap.study.file import load_study
from raymap.study.interventions import (
    Extent,
    Interventions,
    Part,
    Variant,
    in_force,
    variants,
)
from tests.small_study import small_study

ATTENTION = "unet.down_blocks.0.attentions.0.transformer_blocks.0"
WEIGHTS = frozenset(
    f"{block}.{attention}.{to}.weight"
    for block in (ATTENTION, "unet.mid_block.attentions.0.transformer_blocks.0")
    for attention in ("attn1", "attn2")
    for to in ("to_q", "to_k", "to_v", "to_out.0")
)
ALL = Interventions.model_validate("all")


# What a study asks for


@pytest.mark.parametrize(
    "variant",
    [
        Variant("cup-lora", "dose", "0.25", 0.25),
        Variant("cup-lora", "layer", "down_blocks.0.attentions.0.transformer_blocks.0.attn2"),
        Variant("a@b", "timesteps", "early"),
        Variant("cup-lora", "norm", "0.01234", 0.456789),
        Variant("cup-lora", "random", "1"),
    ],
)
def test_a_variant_is_read_back_from_its_name(variant: Variant) -> None:
    assert Variant.parse(variant.name) == variant


@pytest.mark.parametrize("name", ["cup-lora", "cup@colour=red", "@dose=1", "cup@dose="])
def test_other_names_are_no_variants(name: str) -> None:
    with pytest.raises(ValueError, match="is not the name of a variant"):
        Variant.parse(name)


@pytest.mark.parametrize("part", ["projection", "attention", "stage", "layer"])
def test_the_levels_of_a_part_share_out_all_weights(part: Part) -> None:
    weights = WEIGHTS | {"unet.conv_in.weight", "text_encoder.encoder.layers.0.mlp.fc1.weight"}
    levels = SD.levels(weights)[part]
    found = [SD.acting(Variant("a", part, level), weights) for level in levels]
    held = [name for masked in found for name in masked or ()]
    assert sorted(held) == sorted(weights)
    assert len(found) == {"projection": 9, "attention": 3, "stage": 3, "layer": 5}[part]


def test_weights_are_told_apart_by_what_they_do() -> None:
    name = f"{ATTENTION}.attn2.to_out.0.weight"
    assert SD.is_attention(name)
    assert [SD.level(part, name) for part in ("projection", "attention", "stage", "layer")] == [
        "attn2.to_out", "attn2", "down_blocks", ATTENTION.removeprefix("unet.") + ".attn2",
    ]  # fmt: skip
    assert not SD.is_attention("unet.down_blocks.0.resnets.0.conv1.weight")


def test_every_variant_is_asked_for_once_and_only_where_it_differs() -> None:
    keys_and_values = frozenset(n for n in WEIGHTS if "attn2.to_k" in n or "attn2.to_v" in n)
    extents = {"lora": Extent(SD.levels(WEIGHTS), 0.2, 100), "custom": Extent(SD.levels(keys_and_values), 0.05, 400)}
    wanted = variants(ALL, extents)
    assert len({v.name for v in wanted}) == len(wanted)
    families = {name: [v.family for v in wanted if v.adapter == name] for name in extents}
    assert families["lora"].count("dose") == 7
    assert families["lora"].count("projection") == 8
    assert families["lora"].count("layer") == 4
    assert families["custom"].count("attention") == 0  # all of it is cross-attention: the adapter itself
    assert families["custom"].count("projection") == 2
    assert [v.alpha for v in wanted if v.family == "norm"] == [0.25, 1.0]
    assert {v.level for v in wanted if v.family == "budget"} == {"100"}


def test_halves_of_the_denoising_steps() -> None:
    early, late = (Variant("a", "timesteps", level) for level in ("early", "late"))
    assert [in_force(early, k, 5) for k in range(5)] == [True, True, True, False, False]
    assert [in_force(late, k, 5) for k in range(5)] == [False, False, False, True, True]
    assert all(in_force(Variant("a", "dose", "1"), k, 5) for k in range(5))


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        ({}, "asks for nothing"),
        ({"dose": [0, 1, 1]}, "is listed twice"),
        ({"dose": [-1, 0]}, "greater than or equal to 0"),
        ({"parts": ["colour"]}, "interventions.parts"),
        ({"colour": 1}, "is not a key of a study"),
    ],
)
def test_bad_interventions_are_refused_by_key(tmp_path: Path, key: dict[str, object], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        load_study(small_study(tmp_path, interventions=key))


def test_a_triggered_study_has_no_dose(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="write `protocol: plain`"):
        load_study(small_study(tmp_path, interventions="all", protocol="triggered"))


def test_an_adapter_that_is_not_there_or_updates_nothing_is_refused(tmp_path: Path) -> None:
    from raymap.driver.prepare import prepare

    changes = {"methods": {"lora": "embedded-lora", "textual_inversion": "embedded-textual_inversion"}}
    for name, problem in (
        ("star-cup-dreambooth", "is no adapter"),
        ("star-cup-textual_inversion", "updates no weight"),
    ):
        path = small_study(tmp_path, interventions={"dose": [1], "adapters": [name]}, **changes)
        with pytest.raises(InputError, match=problem):
            prepare(load_study(path))


def test_interventions_that_divide_nothing_are_refused(tmp_path: Path) -> None:
    from raymap.driver.prepare import prepare

    path = small_study(tmp_path, interventions={"parts": ["attention"]}, methods={"custom_diffusion": {"steps": 2}})
    with pytest.raises(InputError, match="leave no variant"):
        prepare(load_study(path))


# What replaces an update


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return dict(weights_of(load(PIPELINE)))


def updated(weights: dict[str, torch.Tensor]) -> Adapter:
    """An adapter with an update of each kind."""
    low, whole = [n for n in weights if SD.is_attention(n)][:2]
    random = torch.Generator().manual_seed(0)
    out, inner = weights[low].shape
    down, up = torch.randn(3, inner, generator=random), torch.randn(out, 3, generator=random)
    noise = torch.randn(weights[whole].shape, generator=random)
    return Adapter({low: LowRank(down, up, 0.1), whole: Replacement(weights[whole] + 0.1 * noise)})


def test_an_extent_is_measured_as_by_hand(weights: dict[str, torch.Tensor]) -> None:
    adapter = updated(weights)
    deltas = [u.delta(weights[n]).double() for n, u in adapter.updates.items()]
    held = math.sqrt(sum(float((w.double() ** 2).sum()) for n, w in weights.items() if SD.is_attention(n)))
    changed = math.sqrt(sum(float((d**2).sum()) for d in deltas))
    extent = extent_of(adapter, weights, SD)
    assert extent.norm == pytest.approx(changed / held, rel=1e-6)
    assert extent.size == adapter.size


def test_a_random_update_has_the_norm_and_rank_of_the_learned_one(weights: dict[str, torch.Tensor]) -> None:
    adapter = updated(weights)
    one, same, other = (derived(adapter, Variant("a", "random", seed), weights) for seed in ("0", "0", "1"))
    for name, update in adapter.updates.items():
        mine, again, another = (a.updates[name].delta(weights[name]) for a in (one, same, other))
        assert one.updates[name].norm(weights[name]) == pytest.approx(update.norm(weights[name]), rel=1e-5)
        rank = int(torch.linalg.matrix_rank(update.delta(weights[name])))
        assert int(torch.linalg.matrix_rank(mine)) == rank
        assert torch.equal(mine, again)
        learned = update.delta(weights[name])
        for first, second in ((mine, another), (mine, learned)):
            cosine = torch.nn.functional.cosine_similarity(first.flatten(), second.flatten(), dim=0)
            assert abs(float(cosine)) < 0.2


def test_a_budget_cuts_to_the_best_approximation_of_that_rank(weights: dict[str, torch.Tensor]) -> None:
    adapter = updated(weights)
    sides = sum(sum(weights[n].shape) for n in adapter.updates)
    cut = derived(adapter, Variant("a", "budget", str(2 * sides + 5)), weights)
    assert cut.size == 2 * sides
    for name, update in adapter.updates.items():
        singular = torch.linalg.svdvals(update.delta(weights[name]).double())
        left = (update.delta(weights[name]) - cut.updates[name].delta(weights[name])).double()
        assert float(torch.linalg.norm(left)) == pytest.approx(float(torch.linalg.norm(singular[2:])), rel=1e-4)
    kept = derived(adapter, Variant("a", "budget", str(3 * sides)), weights)
    low = next(iter(adapter.updates))
    assert kept.updates[low] is adapter.updates[low]


# What follows


def cells_of(values: dict[tuple[str, str], np.ndarray], adapter: str = "a", method: str = "lora") -> pl.DataFrame:
    """Cells of schema INTERVENTIONS; `values` holds E_sem of each prompt by (family, level); E_per is twice that."""
    rows = [
        {
            "intervened": adapter, "family": family, "level": level,
            "alpha": float(level) if family == "dose" else 1.0, "prompt_id": f"p{k:03d}", "prompt": f"p{k:03d}",
            "prompt_category": "scenes", "adapter": f"{adapter}@{family}={level}", "method": method,
            "subject": adapter.partition("-")[0], "subject_category": "object", "target": False, "e_sem": float(value),
            "e_sem_signed": 0.0, "e_per": 2 * float(value), "n_seeds": 2, "above_tau_sem": False,
            "above_tau_per": False,
        }
        for (family, level), column in values.items()
        for k, value in enumerate(column)
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=pl.DataFrame(INTERVENTIONS.empty_table()).schema)


def plain_of(column: np.ndarray, adapter: str = "a", method: str = "lora") -> pl.DataFrame:
    cells = cells_of({("dose", "1"): column}, adapter, method)
    return cells.with_columns(adapter=pl.col("intervened")).select(MAP.names)


def test_a_dose_response_has_the_slope_of_a_line_through_the_origin() -> None:
    rates = np.array([0.01, 0.02, 0.04])
    doses = [0.0, 0.5, 1.0, 1.5]
    found: Any = dose_response(cells_of({("dose", f"{d:g}"): rates * d for d in doses}), "e_sem")
    assert found["slope"]["value"] == pytest.approx(rates.mean())
    # The interval is Student's over three prompts: t = 4.3027.
    reach = 4.302652729911275 * rates.std(ddof=1) / math.sqrt(3)
    assert found["slope"]["high"] - found["slope"]["value"] == pytest.approx(reach)
    assert found["monotonicity"]["value"] == 1.0
    assert [c["value"] for c in found["curve"]] == pytest.approx([rates.mean() * d for d in doses])
    assert [s["value"] for s in found["steps"]] == pytest.approx([rates.mean() / 2] * 3)


def test_a_response_that_falls_again_is_not_monotone() -> None:
    falls = {("dose", d): np.array([v, v + 0.01]) for d, v in (("0", 0.0), ("1", 0.05), ("1.5", 0.02))}
    found = dose_response(cells_of(falls), "e_sem")
    assert found is not None
    assert found["monotonicity"]["value"] == pytest.approx(1 / 3)
    assert found["steps"][1]["value"] == pytest.approx(-0.03)


def test_parts_are_summed_and_set_beside_the_whole() -> None:
    whole = np.array([0.04, 0.08, 0.06])
    parts = {("stage", "down_blocks"): whole / 2, ("stage", "mid_block"): whole / 4}
    found = parts_and_whole(cells_of(parts), plain_of(whole), "e_per")
    assert found is not None
    assert found["sum_over_whole"]["value"] == pytest.approx(0.75)
    assert found["sum_over_whole"]["low"] == pytest.approx(0.75)
    assert found["whole"]["value"] == pytest.approx(2 * whole.mean())
    assert found["sum"]["value"] == pytest.approx(1.5 * whole.mean())


def test_random_updates_are_averaged_before_they_are_compared() -> None:
    whole = np.array([0.04, 0.08, 0.06, 0.02])
    found = against_random(cells_of({("random", "0"): whole, ("random", "1"): whole * 2}), plain_of(whole), "e_sem")
    assert found is not None
    assert found["random_over_learned"]["value"] == pytest.approx(1.5)
    assert found["difference"]["value"] == pytest.approx(-0.5 * whole.mean())


@pytest.mark.parametrize(
    ("random", "norm", "words"),
    [
        ((3, 1), (1, 1), ["size and place alone give it", "the two are not told apart"]),
        ((1, 3), (1, 3), ["what was learned decides it", "the amount of change explains it"]),
        ((1, 1), (3, 1), ["the two are not told apart", "the amount of change does not explain it"]),
    ],
)
def test_the_text_says_what_the_controls_mean_for_the_order_of_methods(
    random: tuple[int, int], norm: tuple[int, int], words: list[str]
) -> None:
    rng = np.random.default_rng(0)
    cells, plain = [], []
    for subject in range(4):
        for method, trained, drawn, scaled in zip(("custom", "lora"), (3, 1), random, norm, strict=True):
            name = f"s{subject}-{method}"
            noise = rng.normal(0, 0.001, (3, 12))
            levels_of = {("random", "0"): drawn * 0.01 + noise[0], ("norm", "0.1"): scaled * 0.01 + noise[1]}
            cells.append(cells_of(levels_of, name, method))
            plain.append(plain_of(trained * 0.01 + noise[2], name, method))
    found = compare_methods(pl.concat(cells), pl.concat(plain))
    own = next(row for row in found if row["scale"] == "as trained" and row["measure"] == "e_sem")
    assert own["value"] == pytest.approx(0.02, abs=0.001)
    assert own["order"] == "first"
    text = " ".join(reading([], found))
    assert "as trained, custom shifts other prompts more than lora" in text
    for phrase in words:
        assert phrase in text


def test_dose_1_is_held_against_the_adapter_where_one_device_drew_both() -> None:
    def scores(adapter: str, device: str, digests: list[str]) -> pl.DataFrame:
        return pl.DataFrame(
            {"adapter": adapter, "prompt_id": "p000", "seed": range(len(digests)), "device": device,
             "base_sha256": ["base"] * len(digests), "adapted_sha256": digests}
        )  # fmt: skip

    own = scores("a", "NVIDIA A10G", ["x", "y"])
    for device, digests, known in (
        ("NVIDIA A10G", ["x", "y"], True),
        ("NVIDIA A10G", ["x", "z"], False),
        ("NVIDIA L4", ["u", "v"], None),
    ):
        found = checks(scores("a@dose=1", device, digests), own)
        assert [row["dose_1_is_the_adapter"] for row in found] == [known]


def test_target_prompts_do_not_count() -> None:
    whole = np.array([0.04, 0.08, 0.06])
    cells = cells_of({("random", "0"): whole}).with_columns(target=pl.col("prompt_id") == "p001")
    plain = plain_of(whole).with_columns(target=pl.col("prompt_id") == "p001")
    assert summarize(cells, plain)["random"][0]["learned"]["value"] == pytest.approx(0.05)


# A study with interventions, run
