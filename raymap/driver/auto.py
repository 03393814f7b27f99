"""`dtype: auto`: the number format, and batch size and offload where a study leaves them out, chosen before planning.

The choice follows from the study, the base's shapes, the adapters and the GPU memory that the study's resources name,
so that a resumed run makes the same one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from raymap.base.throughput import device_memory
from raymap.driver.memory import drawing_memory
from raymap.study.adapter import KEPT

if TYPE_CHECKING:
    from raymap.driver.prepare import Prepared

FILLED = 0.85
"""The share of a device's memory that drawing may fill; judges, the device's context and fragments take the rest."""
BATCHES = (16, 8, 4, 2)
OFFLOADS = ("none", "encoders", "model")
DECODES = ("whole", "sliced")


def chosen(prepared: Prepared) -> Prepared:
    """Return a study with all that is automatic chosen, and why in `Prepared.choice`; others stay as they are."""
    study = prepared.study
    if study.dtype != "auto":
        return prepared
    room = device_memory(study.resources)
    if room is None:
        return _with(prepared, "workers compute on a CPU", dtype="float32")
    half = prepared.base.family.half
    kept = min((found.survives.get(half, 1.0) for found in prepared.brought), default=None)
    enough = kept is None or kept >= KEPT
    why = f"{half} keeps {kept:.0%} of every adapter's update" if kept is not None else "no adapter is measured yet"
    for dtype in (half, "float32") if enough else ("float32", half):
        for settings in _settings(prepared, dtype):
            candidate = _with(prepared, "", **settings)
            needed = drawing_memory(candidate).needed(candidate.study.memory.offload)
            if needed <= FILLED * room:
                return _with(prepared, f"{why}, and {_gib(needed)} of {_gib(room)} are taken", **settings)
    *_, frugal = _settings(prepared, half)
    return _with(prepared, f"{why}; nothing is known to fit into {_gib(room)}, and this takes least", **frugal)


def _settings(prepared: Prepared, dtype: str) -> Iterator[dict[str, Any]]:
    """Yield settings from the fastest to the most frugal; what the study gives stays."""
    study = prepared.study
    given = study.memory.model_fields_set
    offloads = (study.memory.offload,) if "offload" in given else OFFLOADS
    decodes = (study.memory.decode,) if "decode" in given else DECODES
    batches = (study.batch_size,) if "batch_size" in study.model_fields_set else BATCHES
    for offload in offloads:
        if offload == "model" and study.speed.compile != "none":
            continue
        for batch in batches:
            for decode in decodes:
                yield {
                    "dtype": dtype,
                    "batch_size": batch,
                    "memory": study.memory.model_copy(update={"offload": offload, "decode": decode}),
                }


def _with(prepared: Prepared, why: str, **settings: Any) -> Prepared:
    study = prepared.study.model_copy(update=settings)
    memory = study.memory
    said = (
        f"auto: {study.dtype}, batches of {study.batch_size}, offload {memory.offload}, decoding {memory.decode}: {why}"
    )
    return replace(prepared, study=study, choice=said)


def _gib(count: int) -> str:
    return f"{count / 2**30:.3g} GiB"
