"""A study's interventions beside its adapters: what can be intervened on, and the variants that follow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from raymap.base.skeleton import skeleton_of
from raymap.errors import InputError
from raymap.store.folder import RunFolder
from raymap.study.interventions import Extent, Interventions, Variant, variants
from raymap.study.model import Study

Touched = Mapping[str, frozenset[str]]
"""The names of the weights that each adapter updates."""


def check_interventions(asked: Interventions, touched: Touched) -> None:
    """Check that the study's adapters can be intervened on.

    Raises:
        InputError: naming the adapter that is not there or updates no weight; there is nothing to be drawn.
    """
    able = sorted(name for name, weights in touched.items() if weights)
    for name in asked.adapters or ():
        if name not in touched:
            raise InputError(f"interventions.adapters: {name}", "is no adapter of the study", f"use {', '.join(able)}")
        if name not in able:
            problem = "updates no weight, so there is nothing to intervene on"
            raise InputError(f"interventions.adapters: {name}", problem, "leave it out")
    if not able:
        raise InputError("interventions", "no adapter of the study updates a weight", "delete the key")
    if not planned_variants(asked, touched):
        problem = "leave no variant: what they divide has one part only in each adapter"
        raise InputError("interventions", problem, "ask for another one, as `dose`, or delete the key")


def planned_variants(asked: Interventions, touched: Touched) -> tuple[Variant, ...]:
    """Return as many variants as the study will have; norms and sizes are not known before the training."""
    return variants(asked, {name: Extent(touched[name], 1.0, 1) for name in _chosen(asked, touched)})


def measured_variants(study: Study, touched: Touched, base: Path, folder: RunFolder) -> tuple[Variant, ...]:
    """Return the study's variants; its adapters lie in the run folder."""
    asked = study.interventions
    if asked is None:
        return ()
    if not (asked.equal_norm or asked.equal_budget):
        return planned_variants(asked, touched)
    # Imported here: measuring updates needs torch, and studies without interventions do not.
    from raymap.adapters.derived import extent_of
    from raymap.adapters.read import load_adapter
    from raymap.adapters.resident import weights_of
    from raymap.base.pipeline import load

    skeleton, weights = skeleton_of(base), weights_of(load(base))
    adapters = {name: load_adapter(folder.adapter(name), skeleton) for name in _chosen(asked, touched)}
    return variants(asked, {name: extent_of(adapter, weights) for name, adapter in adapters.items()})


def _chosen(asked: Interventions, touched: Touched) -> list[str]:
    return [name for name, weights in touched.items() if weights and name in (asked.adapters or touched)]
