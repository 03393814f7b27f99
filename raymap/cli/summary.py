"""What commands print about a run: its summary, its verdict, single cells, and the paper's figures beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from raymap.analysis.measures import E_PER, E_SEM, SIGNED, E
from raymap.cli.app import console
from raymap.display.text import NOTHING, estimate, number, scaled, shown, significant

if TYPE_CHECKING:
    from raymap.analysis.decide.answers import Verdict
    from raymap.analysis.statistics import Judged, Statistics
    from raymap.report.against import Beside

FIRST = 5
"""How many prompts of a longer list are printed; files hold all of them."""
LONG = 4_000
"""How many characters of a headline are printed."""
LEVELS = {"ok": "green", "note": "default", "warn": "yellow", "bad": "bold red"}


def print_summary(statistics: Statistics) -> None:
    """Print the map's summary: adapters, noise floor, control, fragile and robust prompts."""
    judged = _judged_lines(statistics["judged"]) if "judged" in statistics else []
    table = Table(title="Entanglement by adapter (non-target prompts)", title_justify="left")
    for name in ("adapter", "E_sem", "signed", "E_per", "E", "above τ_sem", "above τ_per"):
        table.add_column(name, justify="left" if name == "adapter" else "right")
    for a in statistics["adapters"]:
        table.add_row(
            shown(a["adapter"]),
            estimate(a["e_sem"], E_SEM.digits),
            number(a["e_sem_signed"]["value"], SIGNED.digits, signed=True),
            estimate(a["e_per"], E_PER.digits),
            number(a["e"]["value"], E.digits),
            f"{a['above_tau_sem']}/{a['e_sem']['n']}",
            f"{a['above_tau_per']}/{a['e_per']['n']}",
        )
    console.print(table)
    floor = statistics["noise_floor"]
    if floor["tau_sem"] and floor["tau_per"]:
        sem, per = number(floor["tau_sem"]["value"], E_SEM.digits), number(floor["tau_per"]["value"], E_PER.digits)
        taus = f"τ_sem = {sem}, τ_per = {per}"
        console.print(f"noise floor ({floor['pairs']} seed pairs): {taus}", highlight=False)
    for line in judged:
        console.print(line, highlight=False)
    control = statistics["identity_control"]
    if control["present"]:
        zero = f"NOT ZERO (E_sem up to {control['max_e_sem']:.2g}, E_per up to {control['max_e_per']:.2g})"
        console.print(f"identity control: {'exactly zero' if control['exact'] else zero}", highlight=False)
    for label, ranked in (("most fragile", statistics["most_fragile"]), ("most robust", statistics["most_robust"])):
        rows = ", ".join(f"{shown(r['prompt'])} ({r['e_sem']:.3f})" for r in ranked[:3])
        console.print(f"{label}: {rows}", highlight=False)


def _judged_lines(judged: Judged) -> list[str]:
    """Return one line per further judge and adapter."""
    floors = {judge["judge"]: judge["tau"] for judge in judged["judges"]}
    lines = []
    for a in judged["adapters"]:
        shift, tau = a["shift"], floors[a["judge"]]
        line = f"{a['judge']}: {shown(a['adapter'])} {escape(scaled(shift))}"
        if a["shift_signed"]:
            line += f", signed {significant(a['shift_signed']['value'], signed=True)}"
        if tau:
            line += f"; {a['above_tau']}/{shift['n']} above τ = {significant(tau['value'])}"
        lines.append(line)
    return lines


def print_comparison(rows: list[Beside]) -> None:
    """Print the paper's figures beside the run's."""
    table = Table(title="Beside the paper", title_justify="left", show_lines=True)
    for name in ("what", "place", "paper", "this run", "verdict", "why"):
        table.add_column(name, overflow="fold")
    for row in rows:
        texts = (row["what"], row["place"], row["paper"], row["ours"], row["verdict"], row["why"])
        table.add_row(*(escape(text or NOTHING) for text in texts))
    console.print(table)


def print_verdict(verdict: Verdict) -> None:
    """Print a run's verdict: the headline, each adapter with its shifted prompts, the limits, and what to know."""
    level = {"pass": "ok", "fail": "bad", "undecided": "warn"}.get(verdict["decision"] or "", "note")
    table = Table(title="Adapter by adapter", title_justify="left", show_lines=True)
    for name in ("adapter", "verdict", "look first at (change of the CLIP score)"):
        table.add_column(name, overflow="fold")
    for a in verdict["adapters"]:
        found = a["others"]["shifted_prompts"]
        look = [f"{shown(p['prompt'])} ({number(p['signed'], SIGNED.digits, signed=True)})" for p in found[:FIRST]]
        look += [f"and {len(found) - FIRST} more"] if len(found) > FIRST else []
        style = LEVELS[{"shifted": "bad", "unchanged": "ok"}.get(a["answer"], "warn")]
        table.add_row(shown(a["adapter"]), f"[{style}]{escape(a['sentence'])}[/]", "\n".join(look) or NOTHING)
    console.print(table)
    if verdict["limits"]:
        limits = Table(title="Limits", title_justify="left")
        for name in ("adapter", "decision", "found"):
            limits.add_column(name, overflow="fold")
        for a in verdict["adapters"]:
            for held in a["limits"]:
                style = LEVELS[{"pass": "ok", "fail": "bad"}.get(held["decision"], "warn")]
                limits.add_row(shown(a["adapter"]), f"[{style}]{held['decision']}[/]", escape(held["message"]))
        console.print(limits)
    for note in verdict["notes"]:
        console.print(note, style=LEVELS["warn"], highlight=False, markup=False)
    console.print(verdict["margin"], highlight=False, markup=False)
    style = f"bold {LEVELS[level]}" if level != "bad" else LEVELS[level]
    console.print(shown(verdict["headline"], LONG), style=style, highlight=False, soft_wrap=True)


def print_pair(numbers: dict[str, Any]) -> None:
    """Print the numbers of a cell and of the seed that is shown."""
    table = Table(title=f"{shown(numbers['prompt'])} under {shown(numbers['adapter'])}", title_justify="left")
    for name in ("", "E_sem / |ΔCLIP|", "signed / ΔCLIP", "E_per / LPIPS"):
        table.add_column(name, justify="right" if name else "left")
    shift = numbers["clip_adapted"] - numbers["clip_base"]
    mean = (numbers["e_sem"], numbers["e_sem_signed"], numbers["e_per"])
    rows = (
        (f"mean of {numbers['n_seeds']} seeds", mean),
        (f"seed {numbers['seed']}", (abs(shift), shift, numbers["lpips"])),
    )
    for name, (sem, signed, per) in rows:
        table.add_row(name, number(sem), number(signed, signed=True), number(per))
    console.print(table)
