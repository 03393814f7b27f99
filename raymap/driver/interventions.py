"""The variants of a study's interventions, measured on its trained adapters."""

from __future__ import annotations

from raymap.driver.prepare import Prepared
from raymap.store.folder import RunFolder
from raymap.study.interventions import Variant, chosen, variants


def measured_variants(prepared: Prepared, folder: RunFolder) -> tuple[Variant, ...]:
    """Return the variants that a study asks for; its adapters are in the run folder."""
    asked = prepared.study.interventions
    if asked is None or not (asked.equal_norm or asked.equal_budget):
        return prepared.variants
    # Imported here: measuring updates needs torch, and studies without interventions do not.
    from raymap.adapters.derived import extent_of
    from raymap.adapters.read import load_adapter
    from raymap.adapters.resident import weights_of
    from raymap.base.pipeline import load

    base, weights = prepared.base, weights_of(load(prepared.base.folder, file=prepared.base.file))
    extents = {
        name: extent_of(load_adapter(folder.adapter(name), base.skeleton), weights, base.family)
        for name in chosen(asked, prepared.levels)
    }
    return variants(asked, extents)
