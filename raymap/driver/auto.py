"""`dtype: auto`: the number format, and batch size and offload where a study leaves them out, chosen before planning.

The choice follows from the study, the base's shapes, the adapters and the GPU memory that the study's resources name,
so that a resumed run makes the same one.
"""

from __future__ import annotations

from collections.abc import Iterator

from raymap.base.throughput import device_memory
from raymap.driver.memory import Resident
from raymap.study.adapter import KEPT
from raymap.study.model import Study

FILLED = 0.85
"""The share of a device's memory that drawing may fill; judges, the device's context and fragments take the rest."""
BATCHES = (16, 8, 4, 2)
OFFLOADS = ("none", "encoders", "model")
DECODES = ("whole", "sliced")


def chosen(study: Study, resident: Resident) -> tuple[Study, str]:
    """Return a study with all that is automatic chosen, and in words what and why; a study without it, and nothing."""
    if study.dtype != "auto":
        return study, ""
    room = device_memory(study.resources)
    if room is None:
        return _said(study.model_copy(update={"dtype": "float32"}), "workers compute on a CPU")
    half = resident.base.family.half
    kept = min((found.survives.get(half, 1.0) for found in resident.brought), default=None)
    enough = kept is None or kept >= KEPT
    why = f"{half} keeps {kept:.0%} of every adapter's update" if kept is not None else "no adapter is measured yet"
    for dtype in (half, "float32") if enough else ("float32", half):
        for candidate in _candidates(study, dtype):
            needed = resident.needed(candidate)
            if needed <= FILLED * room:
                return _said(candidate, f"{why}, and {_gib(needed)} of {_gib(room)} are taken")
    *_, frugal = _candidates(study, half)
    return _said(frugal, f"{why}; nothing is known to fit into {_gib(room)}, and this takes least")


def _candidates(study: Study, dtype: str) -> Iterator[Study]:
    """Yield the study with settings from the fastest to the most frugal; what it gives itself stays."""
    given = study.memory.model_fields_set
    offloads = (study.memory.offload,) if "offload" in given else OFFLOADS
    decodes = (study.memory.decode,) if "decode" in given else DECODES
    batches = (study.batch_size,) if "batch_size" in study.model_fields_set else BATCHES
    for offload in offloads:
        if offload == "model" and study.speed.compile != "none":
            continue
        for batch in batches:
            for decode in decodes:
                memory = study.memory.model_copy(update={"offload": offload, "decode": decode})
                yield study.model_copy(update={"dtype": dtype, "batch_size": batch, "memory": memory})


def _said(study: Study, why: str) -> tuple[Study, str]:
    memory = study.memory
    said = f"{study.dtype}, batches of {study.batch_size}, offload {memory.offload}, decoding {memory.decode}"
    return study, f"auto: {said}: {why}"


def _gib(count: int) -> str:
    return f"{count / 2**30:.3g} GiB"
