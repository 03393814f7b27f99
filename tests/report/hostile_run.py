"""A run whose prompts, adapters and cards mean harm, or are only unusual."""

from __future__ import annotations

from pathlib import Path

from raymap.analysis.reduce import reduce_run
from raymap.report.page import render
from raymap.testing.runs import SyntheticRun, write_run

IMAGE = "<img src=x onerror=alert(1)>"
PATH = "../../etc"
PROMPTS = [
    (IMAGE, "people"),
    (PATH, "animals"),
    ("word " * 2000, "objects"),
    ("منظر طبيعي عند الغروب <b>", "scenes"),
    ("a fox 🦊 under \u202eturned\u202c letters", "styles"),
    (
        "</script><script>alert(2)</script> \u2028 $x_1$ | `a` \\end{table} & % # [bold red]no[/] \x1b[31mred",
        "abstract",
    ),
]
ADAPTERS = [
    (IMAGE, "lora", "face-a", "face"),
    (PATH, "custom_diffusion", "face-a", "face"),
    ("\x1b]0;title\x07[bold]a|b[/bold]", "custom_diffusion", "🦊", "style"),
    ("=1+1", "textual_inversion", "c", "object"),
]
CARDS = {IMAGE: {"licence": "<script>alert(3)</script>", "consent": "given <i>in writing</i>", "sha256": "0" * 64}}


def write_hostile_run(root: Path) -> Path:
    """Write the run folder, its statistics and its report."""
    write_run(root, SyntheticRun(ADAPTERS, PROMPTS, 4, 16, False, CARDS))
    reduce_run(root)
    render(root)
    return root
