"""The paper's figures: complete, as printed, and consistent but where the paper itself is not."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from raymap.analysis.paper import published as module
from raymap.analysis.paper.published import (
    METHODS,
    NUMBER,
    PAPER,
    SUBJECT_CATEGORIES,
    Figure,
    Method,
    build_paper,
    load_paper,
)
from raymap.errors import InputError
from raymap.study.subject import SubjectCategory

TEXT = Path(__file__).parents[3] / "shared" / "paper.txt"
FIGURES = load_paper()
RAW = yaml.safe_load(PAPER.read_text(encoding="utf-8"))
with_the_paper = pytest.mark.skipif(not TEXT.exists(), reason=f"the paper's text is not at {TEXT}")


def e(method: Method, category: SubjectCategory) -> float:
    return FIGURES.table1.cell(method, category).e.value


def mean_of_cells(column: str, category: SubjectCategory | None = None) -> float:
    """Average a column of Table 1; its cells have equally many subjects."""
    chosen = [getattr(c, column).value for c in FIGURES.table1.cells if category in (None, c.subject_category)]
    return float(sum(chosen) / len(chosen))


def agree(figure: Figure, mean: float) -> bool:
    """Say whether a printed mean and the mean of numbers printed as finely can be the same before rounding."""
    return abs(figure.value - mean) <= 2 * figure.rounding + 1e-12


def test_printed_digits_are_kept_and_say_how_finely_a_number_can_be_compared() -> None:
    assert FIGURES.table1.cell("lora", "face").e_sem.printed == "0.020"
    assert (Figure("0.020").value, Figure("0.020").rounding) == (0.02, 0.0005)
    assert (Figure("1.0").value, Figure("1.0").rounding) == (1.0, 0.05)
    power = Figure(r"7.77 \times 10^{-15}")
    assert (power.value, power.rounding) == (7.77e-15, 5e-18)


def test_the_printed_counts_multiply() -> None:
    setup, floor = FIGURES.setup, FIGURES.noise_floor
    assert sum(setup.prompts_by_category.values()) == setup.prompts == floor.prompts == 200
    assert sum(group.subjects for group in setup.subject_groups) == setup.subjects == 15
    assert {group.subjects for group in setup.subject_groups} == {FIGURES.table1.subjects_per_cell}
    assert setup.subjects * len(setup.methods) == setup.adapters == 45
    assert floor.seed_pairs == 3 * setup.prompts


def test_more_images_than_printed_are_made_only_with_the_base() -> None:
    setup = FIGURES.setup
    assert setup.adapters * setup.prompts * setup.seeds_per_prompt == setup.images_more_than
    assert setup.images_with_base == (1 + 45) * 200 * 10 == 92_000


def test_the_claimed_order_of_methods_holds_in_table_1_but_for_the_recorded_tie() -> None:
    order = next(o for o in FIGURES.orders if o.id == "methods")
    assert order.within_each_subject_category
    methods = [group.method for group in order.ascending if group.method]
    assert methods == list(METHODS)
    rising = {c: [e(methods[0], c) < e(methods[1], c), e(methods[1], c) < e(methods[2], c)] for c in SUBJECT_CATEGORIES}
    assert rising == {"face": [True, True], "object": [False, True], "style": [True, True]}
    assert e("textual_inversion", "object") == e("lora", "object")
    assert "tie_in_strict_order" in {d.id for d in FIGURES.discrepancies}


def test_for_faces_e_sem_falls_where_e_rises() -> None:
    faces = [FIGURES.table1.cell(method, "face").e_sem.value for method in METHODS]
    assert faces == sorted(faces, reverse=True)
    assert len(set(faces)) == 3
    assert "order_by_which_measure" in {d.id for d in FIGURES.discrepancies}


def test_faces_lie_below_objects_and_these_below_styles_with_every_method_and_on_average() -> None:
    assert all(e(method, "face") < e(method, "object") < e(method, "style") for method in METHODS)
    means = FIGURES.category_means.e
    order = next(o for o in FIGURES.orders if o.id == "subject_categories")
    assert [group.subject_category for group in order.ascending] == sorted(means, key=lambda c: means[c].value)


@pytest.mark.parametrize("category", SUBJECT_CATEGORIES)
def test_mean_e_of_a_subject_category_is_that_of_table_1(category: SubjectCategory) -> None:
    assert agree(FIGURES.category_means.e[category], mean_of_cells("e", category))


def test_mean_e_sem_that_table_1_does_not_give_is_recorded() -> None:
    floor, recorded = FIGURES.noise_floor, {d.id: d for d in FIGURES.discrepancies}
    assert mean_of_cells("e_sem") == pytest.approx(0.0227, abs=5e-5)
    assert not agree(floor.mean_e_sem, mean_of_cells("e_sem"))
    assert "0.0227" in recorded["overall_mean"].readings[1].says
    assert mean_of_cells("e_sem", "style") == pytest.approx(0.025)
    assert "0.025" in recorded["style_mean"].readings[1].says


def test_the_fid_order_is_that_of_e_among_the_four_groups_it_names() -> None:
    order = next(o for o in FIGURES.orders if o.id == "fid")
    named = [e(g.method, g.subject_category) for g in order.ascending if g.method and g.subject_category]
    assert len(named) == 4
    assert named == sorted(named)
    ends = {(r.method, r.subject_category) for r in FIGURES.fid}
    assert ends == {(g.method, g.subject_category) for g in (order.ascending[0], order.ascending[-1])}
    low = max(r.fid.high for r in FIGURES.fid if r.subject_category == "face")
    assert low < min(r.fid.low for r in FIGURES.fid if r.subject_category == "style")


def test_fragile_prompts_lie_above_the_floor_and_robust_ones_below() -> None:
    shifts = [row.e_sem.value for row in (*FIGURES.table2.most_fragile, *FIGURES.table2.most_robust)]
    assert shifts == sorted(shifts, reverse=True)
    assert shifts[4] > FIGURES.noise_floor.tau_sem.value > FIGURES.noise_floor.mean_e_sem.value > shifts[5]


def test_attention_is_of_the_fragile_and_the_robust_prompts() -> None:
    ends = {"high": FIGURES.table2.most_fragile, "low": FIGURES.table2.most_robust}
    for row in FIGURES.table3.rows:
        assert row.prompt in {entry.prompt for entry in ends[row.disruption]}
    by_face = sorted(FIGURES.table3.rows, key=lambda row: row.face.value)
    assert (by_face[0].printed, by_face[-1].printed) == ("crystal chandelier", "time frozen in mid-motion")


def test_hypotheses_are_rejected_where_the_order_found_is_not_the_predicted_one() -> None:
    verdicts = {h.id: (h.verdict, h.found == h.predicted) for h in FIGURES.hypotheses}
    assert verdicts == {"H1": ("rejected", False), "H2": ("confirmed", True), "H3": ("stated", True)}
    p = {h.id: h.p.value if h.p else None for h in FIGURES.hypotheses}
    assert p == {"H1": 1.0, "H2": 7.77e-15, "H3": None}


def test_means_that_stand_in_several_places_are_the_same() -> None:
    h1, h2, h3 = ({group.name: group.mean for group in h.groups} for h in FIGURES.hypotheses)
    assert h3 == dict(FIGURES.category_means.e)
    assert h1["non-people"] == h2["face"]  # all that is not a face adapter's own category
    assert agree(h2["face"], mean_of_cells("e_sem", "face"))


def test_discrepancies_rest_on_numbers_that_are_in_the_data() -> None:
    known = {text for _, text in printed({key: value for key, value in RAW.items() if key != "discrepancies"})}
    for entry in FIGURES.discrepancies:
        assert {number for reading in entry.readings for number in reading.printed} <= known, entry.id


BAD: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "an unquoted number": (lambda d: d["noise_floor"].update(tau_sem=0.044), "noise_floor.tau_sem: is not quoted"),
    "no number": (lambda d: d["noise_floor"].update(tau_sem="about 0.044"), "noise_floor.tau_sem"),
    "a missing cell": (lambda d: d["table1"]["cells"].pop(), "table1.cells: lacks: ('custom_diffusion', 'style')"),
    "a cell twice": (lambda d: d["table1"]["cells"].append(d["table1"]["cells"][0]), "table1.cells: has once too oft"),
    "an unknown method": (lambda d: d["table1"]["cells"][0].update(method="ti"), "table1.cells.0.method"),
    "an unknown key": (lambda d: d["fid"][0].update(kid="1"), "fid.0.kid"),
    "a missing key": (lambda d: d.pop("table2"), "table2"),
    "no place": (lambda d: d["table3"].pop("place"), "table3.place"),
    "no such place": (lambda d: d["table3"].update(place="Table 4"), "table3.place"),
    "a missing category": (lambda d: d["setup"]["prompts_by_category"].pop("people"), "lacks: people"),
    "a count in words": (lambda d: d["setup"].update(adapters="45"), "setup.adapters"),
    "names that are not all": (lambda d: d["setup"]["subject_groups"][1]["names"].pop(), "4 names for 5 subjects"),
    "a range that falls": (lambda d: d["fid"][0].update(fid="239–218"), "fid.0.fid: '239–218' has its larger end"),
    "four fragile prompts": (lambda d: d["table2"]["most_fragile"].pop(), "table2.most_fragile"),
    "another prompt's attention": (lambda d: d["table3"]["rows"][0].update(prompt="a bee"), "table3 has 'a bee'"),
    "a wrong order": (lambda d: d["hypotheses"][0]["found"].reverse(), "hypotheses.0: found is not the order"),
    "a verdict without p": (lambda d: d["hypotheses"][1].pop("p"), "hypotheses.1: a verdict goes with a test"),
    "a missing hypothesis": (lambda d: d["hypotheses"].pop(), "hypotheses: lacks: H3"),
    "one reading": (
        lambda d: d["discrepancies"][0]["readings"].__delitem__(slice(1, None)),
        "discrepancies.0.readings",
    ),
}


@pytest.mark.parametrize(("change", "complaint"), BAD.values(), ids=BAD)
def test_wrong_data_are_refused_by_file_and_key(change: Callable[[dict[str, Any]], Any], complaint: str) -> None:
    raw = copy.deepcopy(RAW)
    change(raw)
    with pytest.raises(InputError, match=re.escape(complaint)) as caught:
        build_paper(raw, "paper.yaml")
    assert str(caught.value).startswith("paper.yaml: ")


@pytest.mark.parametrize("content", [None, "a: [", "- 1"], ids=["missing", "no YAML", "no keys"])
def test_a_damaged_installation_is_bad_input(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "paper.yaml"
    if content is not None:
        path.write_text(content)
    monkeypatch.setattr(module, "PAPER", path)
    with pytest.raises(InputError, match="reinstall raymap"):
        load_paper()


def printed(node: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Yield (place, number) for every number of the data, counts as the paper would print them."""
    if isinstance(node, dict):
        for value in node.values():
            yield from printed(value, node.get("place", place))
    elif isinstance(node, list):
        for value in node:
            yield from printed(value, place)
    elif isinstance(node, int) and not isinstance(node, bool):
        yield place, f"{node:,}"
    elif isinstance(node, str) and re.fullmatch(rf"{NUMBER}|\d+–\d+", node):
        yield place, node


def places(text: str) -> dict[str, str]:
    """Return the paper's text by place; tables (caption and rows) and captions are not part of the section around."""
    found: dict[str, str] = {}
    place = table = ""
    for paragraph in map(str.strip, text.split("\n\n")):
        block = re.match(r"(Table|Figure) \d(?=:)", paragraph)
        heading = re.match(r"(\d(?:\.\d)?) [A-Z][^\n]*$|(Abstract|Limitations|References)$", paragraph)
        if block:
            found[block[0]] = paragraph
        elif table:
            found[table] += "\n" + paragraph
        else:
            if heading:
                place = f"§{heading[1]}" if heading[1] else heading[2]
            found[place] = found.get(place, "") + "\n" + paragraph
        table = block[0] if block and block[1] == "Table" else ""
    return found


def rows(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("\t")] for line in table.splitlines() if "\t" in line]


@with_the_paper
def test_every_number_stands_in_the_place_that_is_given_for_it() -> None:
    text = places(TEXT.read_text(encoding="utf-8"))
    numbers = list(printed(RAW))
    assert len(numbers) > 100
    for place, number in numbers:
        alone = rf"(?<![\d.,]){re.escape(number)}(?!\d|[.,]\d)"
        assert re.search(alone, text[place.split(",")[0]]), f"{number} is not in {place}"


@with_the_paper
def test_the_tables_are_the_papers_row_by_row() -> None:
    text = places(TEXT.read_text(encoding="utf-8"))
    short = {entry.method: entry.short for entry in FIGURES.setup.methods}
    table1 = rows(text["Table 1"])[1:]
    cells = [[c.subject_category.title(), c.e_sem.printed, c.e.printed, c.std.printed] for c in FIGURES.table1.cells]
    assert [row[1:] for row in table1] == cells
    assert [row[0] for row in table1 if row[0]] == [short[method] for method in METHODS]
    both = (*FIGURES.table2.most_fragile, *FIGURES.table2.most_robust)
    assert [row for row in rows(text["Table 2"]) if row[1][0].isdigit()] == [[r.prompt, r.e_sem.printed] for r in both]
    shifts = [[r.printed, r.face.printed, r.style.printed] for r in FIGURES.table3.rows]
    assert [row for row in rows(text["Table 3"]) if row[1][:1].isdigit()] == shifts


@with_the_paper
def test_every_name_is_the_papers() -> None:
    text = " ".join(TEXT.read_text(encoding="utf-8").split())
    setup = FIGURES.setup
    names = [
        FIGURES.title,
        FIGURES.author,
        setup.base_model.split()[-1],
        setup.text_encoder,
        *setup.prompts_by_category,
    ]
    names += [word for group in setup.subject_groups for word in (group.dataset, *group.names)]
    names += [word for entry in setup.methods for word in (entry.printed, entry.changes)]
    names += [f"{category} ({n})" for category, n in setup.prompts_by_category.items()]
    assert [name for name in names if name not in text] == []


@with_the_paper
def test_every_place_is_one_of_the_papers() -> None:
    text = places(TEXT.read_text(encoding="utf-8"))
    named = {place.split(",")[0] for place in re.findall(r"'place': '([^']+)'", str(RAW))}
    assert len(named) > 10
    assert named <= text.keys()


@with_the_paper
def test_what_is_said_not_to_be_printed_is_not() -> None:
    text = TEXT.read_text(encoding="utf-8")
    assert [word for word in ("92,000", "KID", "guidance scale", "learning rate", "effect size") if word in text] == []
