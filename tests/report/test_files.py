"""What a report embeds, the figures and tables beside it, single pairs, and what the commands print."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image
from scipy.cluster.hierarchy import linkage

from raymap.analysis.reduce import reduce_run
from raymap.errors import InputError
from raymap.report.colours import palette, readable_on, stops
from raymap.report.export.write import export
from raymap.report.ordering import cluster_order
from raymap.report.page import render
from raymap.report.sections import adapter_cards
from raymap.report.thumbnails import gallery
from raymap.report.verdict import shown_verdict
from raymap.results import read_run
from raymap.testing.runs import SyntheticRun, write_run
from tests.commands import Ended
from tests.report.invented import ADAPTERS, PROMPTS, RAGGED


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_run(tmp_path_factory.mktemp("run"), SyntheticRun(ADAPTERS, PROMPTS, seeds=8, side=48))
    reduce_run(folder)
    return folder


def decoded(text: str) -> np.ndarray:
    with Image.open(io.BytesIO(base64.b64decode(text))) as image:
        return np.asarray(image.convert("RGB"))


def kept(root: Path, adapter: str, prompt: str, seed: int) -> np.ndarray:
    with Image.open(root / "images" / adapter / prompt / f"{seed}.png") as image:
        return np.asarray(image.convert("RGB"))


def test_small_images_are_embedded_as_they_were_drawn_each_once(root: Path) -> None:
    shown = gallery(read_run(root))
    assert shown.pairs.height == len(ADAPTERS) * len(PROMPTS)
    assert len(set(shown.images)) == len(shown.images)
    for row in shown.pairs.iter_rows(named=True):
        assert np.array_equal(decoded(shown.images[row["base"]]), kept(root, "base", row["prompt_id"], row["seed"]))
        own = row["adapter"] if row["drawn"] else "base"
        assert np.array_equal(decoded(shown.images[row["adapted"]]), kept(root, own, row["prompt_id"], row["seed"]))


def test_a_small_budget_goes_to_the_worst_cells_and_the_page_says_who_went_without(root: Path) -> None:
    run = read_run(root)
    shown = gallery(run, budget=20_000)
    assert shown.encoding is not None
    assert not shown.encoding.lossless
    assert 10_000 < sum(len(base64.b64decode(image)) for image in shown.images) <= 20_000
    with_image, without = shown.pairs.drop_nulls("base"), shown.pairs.filter(pl.col("base").is_null())
    assert 0 < with_image.height < shown.pairs.height
    paid = with_image.filter("drawn")  # an identity shows a base image that may be there already
    assert paid["entanglement"].min() >= without["entanglement"].max()  # type: ignore[operator]
    page = render(root, budget=20_000).read_text()
    assert f"{with_image.height} cells have images in this page, compressed and at most 96 pixels wide" in page
    assert f"The images of {without.height} more cells are kept in images/ and linked" in page
    render(root)


def test_a_damaged_image_is_named(tmp_path: Path, call: Callable[..., tuple[int, str]]) -> None:
    folder = write_run(tmp_path, SyntheticRun(ADAPTERS[:2], PROMPTS[:6], seeds=2, side=16))
    damaged = sorted((folder / "images" / "face-lora").rglob("*.png"))[0]
    damaged.write_bytes(b"no image")
    code, printed = call("report", folder)
    assert code == 2
    assert str(damaged) in printed


def test_a_run_without_images_says_so(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", SyntheticRun(ADAPTERS[:2], PROMPTS[:6], seeds=2, side=16))
    (folder / "images").rename(tmp_path / "elsewhere")
    reduce_run(folder)
    page = render(folder).read_text()
    assert "No cell has images in this page. No image is kept of 12 cells." in page
    assert "No images of these prompts are kept." in page


def test_clusters_stand_together_and_no_order_of_the_tree_is_shorter() -> None:
    rng = np.random.default_rng(0)
    kind = rng.permutation(np.repeat([0, 1, 2], 5))
    values = np.array([[0, 0, 0], [5, 5, 0], [9, 0, 9]])[kind] + rng.normal(0, 0.1, (15, 3))
    values[3, 1] = np.nan
    order = cluster_order(values)
    assert sorted(order) == list(range(15))
    assert (np.diff(kind[order]) != 0).sum() == 2
    filled = np.where(np.isnan(values), np.nanmean(values, axis=0), values)

    def length(positions: list[int]) -> float:
        return float(np.linalg.norm(np.diff(filled[positions], axis=0), axis=1).sum())

    plain = linkage(filled, "average")[:, :2].astype(int)
    leaves: dict[int, list[int]] = {k: [k] for k in range(15)}
    for k, (a, b) in enumerate(plain):
        leaves[15 + k] = leaves[int(a)] + leaves[int(b)]
    assert length(order) <= length(leaves[28]) + 1e-9
    assert sorted(cluster_order(np.full((4, 2), np.nan))) == [0, 1, 2, 3]


def test_colours_are_readable_and_ordered() -> None:
    for ground in ("light", "dark"):
        scale = stops(ground, signed=False)
        brightness = [sum(int(c[k : k + 2], 16) * w for k, w in ((1, 0.21), (3, 0.72), (5, 0.07))) for c in scale]
        steps = np.diff(brightness)
        assert (steps < 0).all() if ground == "light" else (steps > 0).all()
    assert readable_on("#ffffff") == "#000"
    assert readable_on("#000000") == "#fff"
    assert palette().count("{") == 66


def test_an_unknown_format_is_refused_before_anything_is_done(root: Path, call: Callable[..., tuple[int, str]]) -> None:
    code, printed = call("report", root, "--format", "png,doc")
    assert code == 2
    assert "doc" in printed
    assert "png, svg, pdf, csv, md, latex" in printed


def test_show_writes_base_adapted_and_difference(root: Path, tmp_path: Path, command: Callable[..., Ended]) -> None:
    target = tmp_path / "pair.png"
    shown = command("show", root, "SORT 13", "style-lora", "--output", target)
    assert shown.code == 0, shown.err
    cell = read_run(root).cells.filter(prompt_id="p013", adapter="style-lora").row(0, named=True)
    assert str(target) in shown.out
    assert f"{cell['e_sem']:.4f}" in shown.out
    assert f"{cell['e_sem_signed']:+.4f}" in shown.out
    with Image.open(target) as image:
        sheet = np.asarray(image)
    images = [kept(root, name, "p013", int(next((root / "images" / "style-lora" / "p013").iterdir()).stem))
                for name in ("base", "style-lora")]  # fmt: skip
    difference = np.minimum(np.abs(images[1].astype(int) - images[0]) * 3, 255)
    factor = 6  # the smallest whole factor that makes 48 pixels 256 or more
    for k, panel in enumerate((*images, difference)):
        left = 8 + k * (48 * factor + 8)
        part = sheet[8 + 22 : 8 + 22 + 48 * factor, left : left + 48 * factor]
        assert np.array_equal(part[::factor, ::factor], panel)


@pytest.mark.parametrize(
    ("prompt", "adapter", "said"),
    [
        ("kettle", "face-lora", "18 prompts"),
        ("p999", "face-lora", "is not in this run"),
        ("", "face-lora", "is not in this run"),
        ("p001", "face", "face-custom_diffusion, face-lora"),
        ("a kettle of sort 1", "face-lora", None),  # the whole text, although others begin with it
    ],
)
def test_show_asks_for_one_prompt_and_one_adapter(
    root: Path, call: Callable[..., tuple[int, str]], prompt: str, adapter: str, said: str | None
) -> None:
    code, printed = call("show", root, prompt, adapter)
    assert code == (2 if said else 0)
    assert (said or "") in printed


def test_show_before_stats_says_what_is_missing(tmp_path: Path, call: Callable[..., tuple[int, str]]) -> None:
    folder = write_run(tmp_path, SyntheticRun(ADAPTERS[:2], PROMPTS[:6], seeds=2, side=16))
    code, printed = call("show", folder, "p000", "face-lora")
    assert code == 2
    assert "raymap stats" in printed


def test_the_page_shows_the_verdict_and_its_counts_are_those_of_the_cells(root: Path) -> None:
    run = read_run(root)
    found = shown_verdict(run)
    others = run.cells.filter(~pl.col("target"))
    assert found.headline == run.verdict["headline"]
    for row, shown in zip(run.verdict["adapters"], found.adapters, strict=True):
        mine = others.filter(pl.col("adapter") == row["adapter"])
        counts = dict(mine["answer"].value_counts().rows())
        assert counts.get("shifted", 0) == row["others"]["shifted"]
        assert counts.get("cannot tell", 0) == row["others"]["cannot_tell"]
        assert shown.sentence.text == row["sentence"]
    by_name = {a.adapter: a for a in found.adapters}
    assert "by proof" in by_name["face-textual_inversion"].sentence.text
    assert by_name["face-textual_inversion"].look == ()
    assert any("No identity control" in sentence.text for sentence in found.certainty)


def test_terminal_and_page_say_the_same_sentences(root: Path, command: Callable[..., Ended]) -> None:
    verdict = read_run(root).verdict
    ended = command("report", root)
    assert ended.code == 0, ended.err
    said = " ".join(ended.out.split())
    text = unescape(render(root).read_text())
    assert verdict["headline"] in text
    assert verdict["headline"] in said
    for adapter in verdict["adapters"]:
        assert adapter["sentence"] in text


def test_a_run_of_controls_alone_has_a_report_and_no_figure(tmp_path: Path) -> None:
    folder = write_run(tmp_path, SyntheticRun(RAGGED[3:4], PROMPTS[:8], seeds=3, side=16))
    reduce_run(folder)
    assert "No adapter was measured." in render(folder).read_text()
    with pytest.raises(InputError, match="no adapter but controls"):
        export(read_run(folder), ("png",))


def test_licence_and_consent_come_from_the_card_or_the_files_metadata(tmp_path: Path) -> None:
    cards: dict[str, dict[str, Any]] = {
        "face-lora": {"licence": "CC BY 4.0", "consent": "signed, 2026", "metadata": {"modelspec.license": "other"}},
        "style-lora": {"metadata": {"modelspec.license": "openrail"}},
    }
    adapters = [row for row in ADAPTERS if row[1] == "lora"]
    folder = write_run(tmp_path, SyntheticRun(adapters, PROMPTS[:6], seeds=2, side=16, cards=cards))
    reduce_run(folder)
    rows = {row["adapter"]: row for row in adapter_cards(read_run(folder))}
    assert (rows["face-lora"]["licence"], rows["face-lora"]["consent"]) == ("CC BY 4.0", "signed, 2026")
    assert (rows["style-lora"]["licence"], rows["style-lora"]["consent"]) == ("openrail", None)
    page = render(folder).read_text()
    assert all(said in page for said in ("CC BY 4.0", "signed, 2026", "openrail"))


def test_what_holds_over_prompts_alone_is_said_beside_its_interval(tmp_path: Path) -> None:
    def said(folder: str, subjects: int) -> tuple[str, str]:
        adapters = [(f"{c}-{k}-lora", "lora", f"{c}-{k}", c) for c in ("face", "style") for k in range(subjects)]
        root = write_run(tmp_path / folder, SyntheticRun(adapters, PROMPTS[:12], seeds=2, side=16))
        reduce_run(root)
        page = render(root).read_text()
        parts = [page[page.index(f'<h2 id="{name}">') :] for name in ("methods", "hypotheses")]
        return parts[0][: parts[0].index("</section>")], parts[1][: parts[1].index("</section>")]

    methods, hypotheses = said("one", 1)
    assert methods.count("over prompts alone") == 2 * 4
    assert "over prompts alone" in hypotheses
    assert "a single style and a single face subject" in hypotheses
    methods, hypotheses = said("two", 2)
    assert "over prompts alone" not in methods + hypotheses
    assert "a single" not in hypotheses.split("<tbody>", 1)[1]


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [(0.001, 0.02, "yes"), (-0.001, 0.02, "not told apart"), (-0.02, -0.001, "no"), (None, None, "–")],
)
def test_an_order_holds_by_its_interval(
    root: Path, tmp_path: Path, low: float | None, high: float | None, word: str
) -> None:
    shutil.copytree(root, tmp_path, dirs_exist_ok=True)
    statistics = json.loads((root / "statistics.json").read_text())
    assert statistics["method_order"]
    for row in statistics["method_order"]:
        row["difference"] |= {"low": low, "high": high}
        assert row["direction_holds"] is not None
    (tmp_path / "statistics.json").write_text(json.dumps(statistics))
    page = render(tmp_path).read_text()
    table = page[page.index("<caption>Order of methods") :]
    body = table[table.index("<tbody>") : table.index("</tbody>")]
    assert body.count(f'<td class="text">{word}</td></tr>') == len(statistics["method_order"])


def test_what_was_found_of_attention_and_interventions_is_shown(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(root, folder)
    assert 'id="why"' not in render(folder).read_text()
    mean = {"value": 0.5, "low": 0.25, "high": 0.75}
    row = {"prompt_id": "p001", "prompt": "a <i>lamp</i>", "prompt_category": "objects", "protocol": "free",
           "e_sem": 0.125, "delta_e4": {"style-lora": 3.25, "face-lora": None}}  # fmt: skip
    attention = {
        "identity_control": {"present": True, "exact": True, "max_delta": 0.0, "max_js": 0.0, "rows": 4},
        "reading": ["free: a sentence on attention."],
        "table_3": [row],
    }
    dose = {"adapter": "style-lora", "method": "lora", "subject": "style", "measure": "e_sem", "slope": mean,
            "curve": [{"dose": 0.0} | mean, {"dose": 1.0} | mean], "monotonicity": mean, "steps": []}  # fmt: skip
    parts = {"adapter": "style-lora", "family": "projection", "measure": "e_per", "sum": mean, "whole": mean,
             "sum_over_whole": mean, "levels": [{"level": "attn2.to_k"} | mean]}  # fmt: skip
    random = {"adapter": "style-lora", "measure": "e_sem", "learned": mean, "random": mean,
              "random_over_learned": {"value": 0.14, "low": 0.1, "high": 0.19}}  # fmt: skip
    shorter = dose | {"adapter": "face-lora", "curve": [{"dose": 1.0} | mean], "slope": mean | {"value": 0.75}}
    interventions = {
        "scope": "all prompts but those of the subject's own category",
        "checks": [{"adapter": "style-lora", "dose_0_is_the_base": False, "dose_1_is_the_adapter": True}],
        "dose": [shorter, dose], "parts": [parts], "random": [random], "methods": [],
        "reading": ["E_sem: a sentence on size."],
    }  # fmt: skip
    (folder / "attention.json").write_text(json.dumps(attention))
    (folder / "interventions.json").write_text(json.dumps(interventions))
    page = render(folder).read_text()
    for said in ("a &lt;i&gt;lamp&lt;/i&gt;", "3.25", "a sentence on attention.", "attn2.to_k", "a sentence on size."):
        assert said in page
    assert "for style-lora: nothing below can be trusted" in page
    after = page[page.index("<caption>Dose: ") :]
    head, _, body = after[: after.index("</table>")].partition("<tbody>")
    assert [head.count(f'<th scope="col">α {dose}</th>') for dose in (0.0, 1.0)] == [1, 1]
    rows = [re.sub("<[^>]+>", "|", row) for row in body.split("</tr>")]
    assert [row.replace("|", " ").split()[:4] for row in rows[:2]] == [
        ["face-lora", "E_sem", "–", "0.5000"],
        ["style-lora", "E_sem", "0.5000", "0.5000"],
    ]
    assert '0.14 <span class="dim">[0.10, 0.19]</span>' in page
    assert "adapters that leave attention as it is have no column" in page
    export(read_run(folder), ("csv", "md", "latex"))
    table = pl.read_csv(folder / "report" / "table_3.csv")
    assert table.row(0, named=True)["delta_e4 style-lora"] == 3.25
    assert table.row(0, named=True)["delta_e4 face-lora"] is None
    assert "| 3.25 |" in (folder / "report" / "table_3.md").read_text()
