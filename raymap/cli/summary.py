"""What commands print of a run: its summary, and the paper's figures beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from raymap.cli.app import console
from raymap.display.text import shown, significant

if TYPE_CHECKING:
    from raymap.analysis.judged import Judged
    from raymap.report.verdict import Verdict

LEVELS = {"ok": "green", "note": "default", "warn": "yellow", "bad": "bold red"}


def print_summary(statistics: dict[str, Any]) -> None:
    """Print the map's summary: adapters, noise floor, control, fragile and robust prompts."""
    table = Table(title="Entanglement by adapter (non-target prompts)", title_justify="left")
    for name in ("adapter", "E_sem", "signed", "E_per", "E", "above τ_sem", "above τ_per"):
        table.add_column(name, justify="left" if name == "adapter" else "right")
    for a in statistics["adapters"]:
        table.add_row(
            shown(a["adapter"]),
            _estimate(a["e_sem"], 4),
            "–" if a["e_sem_signed"]["value"] is None else f"{a['e_sem_signed']['value']:+.4f}",
            _estimate(a["e_per"], 3),
            _estimate(a["e"] | {"low": None}, 3),
            f"{a['above_tau_sem']}/{a['e_sem']['n']}",
            f"{a['above_tau_per']}/{a['e_per']['n']}",
        )
    console.print(table)
    floor = statistics["noise_floor"]
    if floor["pairs"]:
        taus = f"τ_sem = {floor['tau_sem']['value']:.4f}, τ_per = {floor['tau_per']['value']:.3f}"
        console.print(f"noise floor ({floor['pairs']} seed pairs): {taus}", highlight=False)
    if "judged" in statistics:
        _print_judged(statistics["judged"])
    control = statistics["identity_control"]
    if control["present"]:
        zero = f"NOT ZERO (E_sem up to {control['max_e_sem']:.2g}, E_per up to {control['max_e_per']:.2g})"
        console.print(f"identity control: {'exactly zero' if control['exact'] else zero}", highlight=False)
    for key, label in (("most_fragile", "most fragile"), ("most_robust", "most robust")):
        rows = ", ".join(f"{shown(r['prompt'])} ({r['e_sem']:.3f})" for r in statistics[key][:3])
        console.print(f"{label}: {rows}", highlight=False)


def _estimate(e: dict[str, Any], digits: int) -> str:
    if e["value"] is None:
        return "–"
    low_high = f" [{e['low']:.{digits}f}, {e['high']:.{digits}f}]" if e["low"] is not None else ""
    return f"{e['value']:.{digits}f}{low_high}"


def _print_judged(judged: Judged) -> None:
    """Print one line per further judge and adapter."""
    floors = {judge["judge"]: judge["tau"] for judge in judged["judges"]}
    for a in judged["adapters"]:
        shift, tau = a["shift"], floors[a["judge"]]
        line = f"{a['judge']}: {shown(a['adapter'])} {significant(shift['value'])}"
        if shift["low"] is not None:
            line += escape(f" [{significant(shift['low'])}, {significant(shift['high'])}]")
        if a["shift_signed"]:
            line += f", signed {significant(a['shift_signed']['value'], signed=True)}"
        if tau:
            line += f"; {a['above_tau']}/{shift['n']} above τ = {significant(tau['value'])}"
        console.print(line, highlight=False)


def print_comparison(rows: list[dict[str, Any]]) -> None:
    """Print the paper's figures beside the run's."""
    table = Table(title="Beside the paper", title_justify="left", show_lines=True)
    for name in ("what", "place", "paper", "this run", "verdict", "why"):
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(escape(str(row[key] or "–")) for key in ("what", "place", "paper", "ours", "verdict", "why")))
    console.print(table)


def print_verdict(verdict: Verdict, statistics: dict[str, Any]) -> None:
    """Print what the report says first: what shifted, how sure that is, where to look."""
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
        table.add_row(shown(a.adapter), f"[{style}]{escape(a.sentence.text)}[/]", look or "–")
    console.print(table)
    for sentence in verdict.certainty:
        console.print(f"- {sentence.text}", style=LEVELS[sentence.level], highlight=False, markup=False)


def print_pair(numbers: dict[str, Any]) -> None:
    """Print a cell's numbers and those of the seed that is shown."""
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
        table.add_row(name, *("–" if v is None else f"{v:{s}.4f}" for v, s in ((sem, ""), (signed, "+"), (per, ""))))
    console.print(table)
