"""Which judges exist, and which weights the embedded ones have: looked up without loading or fetching any."""

from __future__ import annotations

import hashlib

from raymap.embedded.model import CLIP, LPIPS
from raymap.errors import InputError

LPIPS_NETS = ("alex", "vgg", "squeeze")


def check_judges(clip: str, lpips: str) -> None:
    """Check the names of a study's CLIP and LPIPS models.

    Raises:
        InputError: a name that is neither `embedded` nor known to open_clip or lpips.
    """
    if clip != "embedded":
        import open_clip  # takes seconds, and the embedded judge needs no check

        architecture, _, tag = clip.partition("/")
        if tag not in open_clip.list_pretrained_tags_by_model(architecture):
            raise InputError(f"clip: {clip}", "is no pretrained open_clip model", "write ARCHITECTURE/TAG or embedded")
    if lpips != "embedded" and lpips not in LPIPS_NETS:
        raise InputError(f"lpips: {lpips}", "is no LPIPS net", f"use embedded or one of {', '.join(LPIPS_NETS)}")


def judge_digests(clip: str, lpips: str) -> dict[str, str]:
    """Return SHA-256 digests of the embedded judges that a study uses: a run must not mix two versions of one."""
    files = {"clip": CLIP / "open_clip_model.safetensors", "lpips": LPIPS}
    used = {"clip": clip == "embedded", "lpips": lpips == "embedded"}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items() if used[name]}
