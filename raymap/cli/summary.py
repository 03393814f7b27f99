"""What commands print about a run: its summary, its verdict, single cells, and the paper's figures beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from raymap.analysis.measures import E_PER, E_SEM, SIGNED, E
from raymap.cli.app import console
from raymap.display.text import NOTHING, estimate, number, scaled, shown, significant

if TYPE_CHECKING:
    from raymap.analysis.statistics import Judged, Statistics
    from raymap.report.against import Beside
    from raymap.report.verdict import Verdict

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


def print_verdict(verdict: Verdict, statistics: Statistics) -> None:
    """Print what the report says first: what shifted, how sure that is, and where to look."""
    if verdict.alarm:
        console.print(verdict.alarm.text, style=LEVELS["bad"], highlight=False)
    console.print(verdict.headline, style="bold", highlight=False)
    print_summary(statistics)
    table = Table(title="Adapter by adapter", title_justify="left", show_lines=True)
    for name in ("adapter", "what shifted", "look first at (E_sem)"):
        table.add_column(name, overflow="fold")
    for a in verdict.adapters:
        look = "\n".join(f"{shown(cell.prompt)} ({cell.e_sem:.3f})" for cell in a.look)
        style = LEVELS[a.sentence.level]
        table.add_row(shown(a.adapter), f"[{style}]{escape(a.sentence.text)}[/]", look or NOTHING)
    console.print(table)
    for sentence in verdict.certainty:
        console.print(f"- {sentence.text}", style=LEVELS[sentence.level], highlight=False, markup=False)


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
