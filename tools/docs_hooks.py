"""What mkdocs calls while it builds the documentation: the command line's page gets the help of every command."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

PAGE = "command-line.md"


def on_page_markdown(markdown: str, page: Any, **given: Any) -> str:
    """Return a page's text; that of the command line ends with what typer writes about `raymap`.

    Raises:
        subprocess.CalledProcessError: the command line cannot be loaded.
    """
    if page.file.src_uri != PAGE:
        return markdown
    command = [sys.executable, "-m", "typer", "raymap.cli", "utils", "docs", "--name", "raymap"]
    text = subprocess.run(command, check=True, stdout=subprocess.PIPE, encoding="utf-8").stdout
    commands = text.split("\n## ", 1)[1]  # what typer writes before the first command is on the page already
    return f"{markdown}\n## {commands}"
