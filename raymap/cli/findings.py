"""What `raymap check` prints: one paragraph per adapter, or one row where there are many, or JSON."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from raymap.display.text import LONG, cut, plain, shown

if TYPE_CHECKING:
    from raymap.adapters.blocks import Block
    from raymap.adapters.check import Finding
    from raymap.adapters.glance import Glance

BARS = 16
"""Up to how many blocks have a bar each; more become one row of columns for each list of blocks."""
LENGTH = 24
"""How many characters the longest bar has."""
COLUMNS = "▁▂▃▄▅▆▇█"
EIGHTHS = "▏▎▍▌▋▊▉█"
TAGS = 12
"""How many of the commonest tags are printed."""
NAME = 24
"""How many characters of a name a list shows at least."""


def print_findings(console: Console, findings: Sequence[Finding]) -> None:
    """Print a paragraph per adapter: what it is, what it was made for, what it changes, or why it is refused."""
    for k, finding in enumerate(findings):
        if k:
            console.print()
        mark = "[red]✗[/red]" if finding.problem else "[green]✓[/green]"
        parts = [f"[bold]{shown(str(finding.seen.path), LONG)}[/bold]", _what(finding)]
        parts += [_bytes(finding.seen.bytes)] if finding.seen.bytes else []
        console.print(f"{mark} " + " · ".join(part for part in parts if part), highlight=False, soft_wrap=True)
        _print_lines(console, list(_lines(finding)))


def print_list(console: Console, seen: Sequence[Glance]) -> None:
    """Print a row per adapter, and how many there are of each kind.

    What is to be said of one stands in a line below its row; where nobody looks at a terminal, at the end of the row.
    """
    root = _common([one.path for one in seen])
    rows = [(_row(one, root), _notes(one)) for one in seen]
    head = ("adapter", "kind", "made for", "rank", "size")
    widths = [max(len(row[k]) for row, _ in [(head, []), *rows]) for k in range(len(head))]
    if console.is_terminal:
        widths[0] = min(widths[0], max(NAME, console.width - sum(widths[1:]) - 2 * len(head)))
    console.print(Text(_aligned(head, widths), style="bold"), no_wrap=True, soft_wrap=True)
    for row, notes in rows:
        line = Text(_aligned(row, widths))
        if console.is_terminal:
            console.print(line, no_wrap=True, overflow="ellipsis")
            for note in notes:
                console.print(Padding(note, (0, 0, 0, 4)))
        else:
            console.print(Text("  ").join([line, *notes]), soft_wrap=True)
    console.print(f"\n{_counted(seen)}", highlight=False, soft_wrap=True)
    console.print("These are headers alone; --full reads the numbers too.", highlight=False)


def _row(one: Glance, root: Path | None) -> tuple[str, ...]:
    name = str(one.path.relative_to(root) if root else one.path)
    ranks = ", ".join(map(str, one.ranks[:3])) + (" …" if len(one.ranks) > 3 else "")
    return plain(name), one.kind.title if one.kind else "?", one.made_for or "", ranks, _bytes(one.bytes)


def _notes(one: Glance) -> list[Text]:
    notes = [Text(plain(one.problem), "red")] if one.problem else []
    notes += [Text(plain(warning), "yellow") for warning in one.warnings]
    words = [Text(f"words: {plain(', '.join(one.trigger_words))}", "dim")] if one.trigger_words else []
    return notes or words


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [cut(cell, width).ljust(width) for cell, width in zip(row[:-1], widths[:-1], strict=True)]
    return "  ".join([*cells, row[-1].rjust(widths[-1])])


def records(found: Sequence[Finding | Glance]) -> str:
    """Return findings, or what headers tell, as a JSON text: `adapters`, an object for each."""
    return json.dumps({"adapters": [_record(one) for one in found]}, indent=2, ensure_ascii=False)


def _record(one: Any) -> dict[str, Any]:
    """Return a finding with what its header tells beside the rest; of a refused one, that is what is left."""
    seen = getattr(one, "seen", one)
    record = {name: getattr(seen, name) for name in asdict(seen)}
    record |= {"kind": seen.kind.title if seen.kind else None, "made_for": seen.made_for, "warnings": seen.warnings}
    own = {} if one is seen else {name: getattr(one, name) for name in asdict(one) if name != "seen"}
    record |= own | {"ranks": own.get("ranks") or seen.ranks}
    return {name: _plain(value) for name, value in record.items()}


def _plain(value: Any) -> Any:
    """Return a value as JSON has it; a number that is not finite is null."""
    if is_dataclass(value) and not isinstance(value, type):
        shares = {"share": value.share} if hasattr(value, "share") else {}
        return {name: _plain(entry) for name, entry in (asdict(value) | shares).items()}
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value


def _what(finding: Finding) -> str:
    """Return the kind of an adapter: as its reader calls it, or as its tensors tell where it is refused."""
    return finding.seen.kind.title if finding.seen.kind else finding.method


def _lines(f: Finding) -> Iterator[tuple[str, str]]:
    """Yield the lines of an adapter's paragraph, each with its label, in rich's markup."""
    seen = f.seen
    if seen.title and seen.title != seen.path.stem:
        yield "title", shown(seen.title)
    said = f" (its header says {shown(seen.said_base)})" if seen.said_base else ""
    if seen.made_for or said:
        yield "made for", f"{seen.made_for or 'an unknown base'}{said}"
    if f.problem:
        yield "refused", f"[red]{shown(f.problem, LONG)}[/red]"
    elif f.base:
        yield "fits", _fits(f)
    if f.norm is not None:
        survives = ", ".join(f"{kind} {share:.0%}" for kind, share in f.survives.items())
        yield "update", f"‖ΔW‖/‖W‖ = {f.norm:.3g}" + (f"; of it survive in {survives}" if survives else "")
    elif f.blocks:
        yield "update", f"‖ΔW‖ = {math.hypot(*(block.norm for block in f.blocks)):.3g}"
    yield from _bars(f.blocks)
    if f.triggers:
        yield "trigger", shown(", ".join(f.triggers))
    if seen.trigger_words and not set(seen.trigger_words) <= set(f.triggers):
        yield "words", f"{shown(', '.join(seen.trigger_words))} (in the header)"
    if seen.tags:
        yield "captions", shown(", ".join(f"{tag} {count}" for tag, count in seen.tags[:TAGS]), LONG)
    if seen.settings:
        yield "trained", shown("; ".join(f"{name}: {value}" for name, value in seen.settings.items()), LONG)
    if seen.licence:
        yield "licence", shown(seen.licence)
    if seen.consent:
        yield "consent", shown(seen.consent)
    for note in f.notes:
        yield "note", shown(note, LONG)
    for warning in f.warnings:
        yield "warning", f"[yellow]{shown(warning, LONG)}[/yellow]"


def _fits(f: Finding) -> str:
    parts = [_counted_as(f.weights, "weight")] if f.weights else []
    parts += [_counted_as(f.vectors, "vector")] if f.vectors else []
    parts += [f"{f.size:,} numbers"]
    parts += [f"rank {_some(f.ranks)}"] if f.ranks else []
    parts += [f"alpha {_some(f.alphas)}"] if f.alphas else []
    line = f"{shown(f.base, LONG)}: {', '.join(parts)}"
    return f"{line} (known architecture; give --base for norms)" if f.outline and f.weights else line


def _counted_as(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number:,} {what}s"


def _some(numbers: Sequence[float]) -> str:
    return ", ".join(f"{number:g}" for number in numbers[:4]) + (" …" if len(numbers) > 4 else "")


def _bars(blocks: Sequence[Block]) -> Iterator[tuple[str, str]]:
    """Yield where an update lies: a bar for each block, or a row of columns for each list of many blocks."""
    values = {b.name: b.norm if b.share is None else b.share for b in blocks}
    finite = [value for value in values.values() if math.isfinite(value)]
    most = max(finite, default=0.0)
    if most <= 0 or len(values) < 2:
        return
    if len(values) <= BARS:
        wide = max(map(len, values))
        for name, value in values.items():
            yield "", f"{name:<{wide}}  {_bar(value / most) if math.isfinite(value) else ''} {value:.3g}"
        return
    lists: dict[str, dict[str, float]] = {}
    for name, value in values.items():
        lists.setdefault(name.partition(".")[0], {})[name] = value
    wide = max(map(len, lists))
    for stem, own in lists.items():
        columns = "".join(COLUMNS[min(7, int(8 * value / most))] for value in own.values() if math.isfinite(value))
        top = max(own, key=lambda name: own[name])
        where = f"most in {top.rpartition('.')[2]}: {own[top]:.3g}" if len(own) > 1 else f"{own[top]:.3g}"
        yield "", f"{stem:<{wide}}  {columns} {where}"


def _bar(share: float) -> str:
    eighths = round(share * LENGTH * 8)
    full, rest = divmod(eighths, 8)
    return "█" * full + (EIGHTHS[rest - 1] if rest else "")


def _print_lines(console: Console, lines: Sequence[tuple[str, str]]) -> None:
    """Print labelled lines: on a terminal with hanging indents, elsewhere each as one line."""
    if not console.is_terminal:
        for label, line in lines:
            console.print(Text.from_markup(f"  {label:<9} {line}"), soft_wrap=True)
        return
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=10, no_wrap=True, style="dim", justify="right")
    grid.add_column(overflow="fold")
    for label, line in lines:
        grid.add_row(label, line)
    console.print(grid, highlight=False)


def _bytes(size: int) -> str:
    for unit, bytes_ in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= bytes_:
            return f"{size / bytes_:.3g} {unit}"
    return f"{size} B"


def _common(paths: Sequence[Path]) -> Path | None:
    """Return the folder in which all paths are; None where they have none in common."""
    parents = [path.parent for path in paths]
    shared = parents[0] if parents else None
    while shared is not None and not all(parent.is_relative_to(shared) for parent in parents):
        shared = None if shared == shared.parent else shared.parent
    return None if shared in (None, Path(), Path("/")) else shared


def _counted(seen: Sequence[Glance]) -> str:
    kinds = Counter(one.kind.title if one.kind else "unknown" for one in seen)
    bad = sum(one.problem is not None for one in seen)
    counts = ", ".join(f"{number} {plain(kind)}" for kind, number in kinds.most_common())
    return f"{len(seen)} adapters: {counts}" + (f"; {bad} of them cannot be used" if bad else "")
