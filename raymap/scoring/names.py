"""Checks the names of a study's judges, and says which version of each is used. Loads and fetches no judge."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from raymap.embedded.model import CLIP, LPIPS
from raymap.errors import InputError
from raymap.scoring.judges import judge_infos

LPIPS_NETS = ("alex", "vgg", "squeeze")
RANDOM = "random:"
"""What precedes the architecture of a judge with random weights, which costs as much as a trained one."""


def check_judges(clip: str, lpips: str, judges: Iterable[str] = ()) -> None:
    """Check the names of a study's CLIP and LPIPS models and of its further judges.

    Raises:
        InputError: a CLIP or LPIPS name that is neither `embedded` nor known to open_clip or lpips; a further judge
            that is not installed or does not declare what it must.
    """
    if clip != "embedded":
        import open_clip  # takes seconds, and the embedded judge needs no check

        architecture, _, tag = clip.partition("/")
        if tag not in open_clip.list_pretrained_tags_by_model(architecture):
            raise InputError(f"clip: {clip}", "is no pretrained open_clip model", "write ARCHITECTURE/TAG or embedded")
    if lpips != "embedded" and lpips not in LPIPS_NETS:
        raise InputError(f"lpips: {lpips}", "is no LPIPS net", f"use embedded or one of {', '.join(LPIPS_NETS)}")
    judge_infos(judges)


def check_timed_judges(clip: str, lpips: str) -> None:
    """Check the CLIP and LPIPS models of a measurement, which may have random weights (`random:ARCHITECTURE`).

    Raises:
        InputError: as `check_judges`; an architecture that open_clip or lpips does not have.
    """
    if clip.startswith(RANDOM):
        import open_clip  # takes seconds, and the embedded judge needs no check

        if clip.removeprefix(RANDOM) not in open_clip.list_models():
            raise InputError(f"clip: {clip}", "is no architecture of open_clip", f"write {RANDOM}ViT-L-14, for example")
        clip = "embedded"
    net = lpips.removeprefix(RANDOM)
    if net != lpips and net not in LPIPS_NETS:
        raise InputError(f"lpips: {lpips}", "is no LPIPS net", f"write {RANDOM} and one of {', '.join(LPIPS_NETS)}")
    check_judges(clip, net)


def judge_digests(clip: str, lpips: str) -> dict[str, str]:
    """Return SHA-256 digests of the embedded judges that a study uses: a run must not mix two versions of one."""
    files = {"clip": CLIP / "open_clip_model.safetensors", "lpips": LPIPS}
    used = {"clip": clip == "embedded", "lpips": lpips == "embedded"}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items() if used[name]}


def judge_versions(judges: Iterable[str]) -> dict[str, str]:
    """Return what each further judge of a study declares as its version, by name.

    Raises:
        InputError: as `check_judges`.
    """
    return {info.name: info.version for info in judge_infos(judges)}
