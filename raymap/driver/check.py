"""Examines adapter files before a study names them: whether they fit a base, and what to be wary of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from raymap.base.fetch import offline

if TYPE_CHECKING:
    from raymap.adapters.check import Finding


def check_files(
    adapters: Sequence[Path], base: str, suite: str, trigger: str | None = None, weights: str | None = None
) -> list[Finding]:
    """Return what each adapter file holds; one that does not fit is described too, with the reason.

    A base of the hub whose architecture is known is not fetched for it; updates are then compared with no weights.

    Args:
        base: `embedded`, a diffusers folder, a single-file checkpoint, or a hub id.
        suite: the name or path of prompts in which no trigger should occur by accident.
        trigger: a new name for the adapters' learned token.
        weights: a single file whose denoiser takes the place of the base's.

    Raises:
        InputError: the base or the suite cannot be used.
    """
    if base == "embedded":
        offline()
    # Imported here, because the model libraries look only once whether they may ask the hub.
    from raymap.adapters.check import examine
    from raymap.adapters.resident import weights_of
    from raymap.base.model import open_base
    from raymap.base.pipeline import load
    from raymap.study.suite import read_suite

    prompts = [prompt.text for prompt in read_suite(suite, "--suite", Path())]
    opened = open_base(base, weights, outline=True)
    own = None if opened.is_outline else weights_of(load(opened.folder, file=opened.file))
    return [examine(path, opened.skeleton, own, prompts, trigger) for path in adapters]
