"""Which families of bases there are, raymap's own and those of installed packages, and to which one a base belongs."""

from __future__ import annotations

import inspect
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from raymap.base.families.aura_flow import AURA_FLOW
from raymap.base.families.cog_view import COG_VIEW_4
from raymap.base.families.family import Family
from raymap.base.families.flux import CHROMA, FLUX, FLUX_2, FLUX_2_KLEIN
from raymap.base.families.hunyuan import HUNYUAN_DIT, HUNYUAN_IMAGE
from raymap.base.families.lumina import LUMINA_2
from raymap.base.families.pixart import PIXART_ALPHA, PIXART_SIGMA, SANA
from raymap.base.families.qwen_image import QWEN_IMAGE
from raymap.base.families.stable_diffusion import STABLE_DIFFUSION
from raymap.base.families.stable_diffusion_3 import STABLE_DIFFUSION_3
from raymap.base.families.stable_diffusion_xl import KOLORS, STABLE_DIFFUSION_XL
from raymap.base.families.wan import WAN
from raymap.base.families.z_image import Z_IMAGE
from raymap.base.shapes import INDEX, index_of
from raymap.errors import InputError

FAMILIES: dict[str, Family] = {
    family.class_name: family
    for family in (
        STABLE_DIFFUSION,
        STABLE_DIFFUSION_XL,
        KOLORS,
        STABLE_DIFFUSION_3,
        FLUX,
        CHROMA,
        FLUX_2,
        FLUX_2_KLEIN,
        QWEN_IMAGE,
        Z_IMAGE,
        LUMINA_2,
        PIXART_ALPHA,
        PIXART_SIGMA,
        SANA,
        HUNYUAN_DIT,
        HUNYUAN_IMAGE,
        WAN,
        AURA_FLOW,
        COG_VIEW_4,
    )
}  # fmt: skip
"""raymap's own families, by the name of their pipeline's class."""
GROUP = "raymap.families"
"""The entry points by which an installed package adds families: `PipelineClass = "module:FAMILY"`, a `Family`."""


def family_names() -> tuple[str, ...]:
    """Return the names of all families' pipelines: raymap's own, then those of installed packages."""
    return (*FAMILIES, *sorted({entry.name for entry in entry_points(group=GROUP)} - FAMILIES.keys()))


def trainable_families() -> tuple[str, ...]:
    """Return the titles of raymap's own families whose denoisers can be trained."""
    return tuple(family.title for family in FAMILIES.values() if family.trainable)


@cache
def find_family(class_name: str) -> Family | None:
    """Return the family whose pipeline's class has this name; None where there is none.

    Raises:
        InputError: an installed package offers it, and it cannot be loaded or is not a family of such pipelines.
    """
    if class_name in FAMILIES:
        return FAMILIES[class_name]
    for entry in entry_points(group=GROUP, name=class_name):
        where = f"family {class_name} of the package {entry.dist.name if entry.dist else '?'}"
        try:
            family = entry.load()
        except Exception as error:  # whatever a package of others raises while it is imported
            raise InputError(where, f"cannot be loaded ({error!r})", "correct or uninstall the package") from error
        if not isinstance(family, Family) or family.class_name != class_name:
            problem = f"{entry.value} does not describe pipelines of this class"
            raise InputError(where, problem, "let it name an instance of raymap.base.families.family.Family")
        return family
    return None


def family_at(folder: Path, base: str | None = None) -> Family:
    """Return the family of a base's folder; a text-to-image pipeline of diffusers that none describes is a family too.

    Args:
        base: the base's name in a study, for errors; the folder by default.

    Raises:
        InputError: model_index.json cannot be read, or names a pipeline that draws no image from a prompt alone; or as
            `find_family`.
    """
    where = f"base: {base or folder}"
    try:
        index = index_of(folder)
        name = str(index["_class_name"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(where, f"its {INDEX} names no pipeline ({error!r})", "fetch the base again") from error
    family = find_family(name) or _undescribed(name)
    if family is None:
        problem = f"its pipeline is a {name}, which is not known to draw an image from a prompt alone"
        raise InputError(where, problem, f"give a base of a kind such as {', '.join(family_names())}")
    return family.of(index)


ASKED = {"prompt", "generator", "num_inference_steps", "output_type", "return_dict"}
"""What the call of a pipeline has to take that is to be drawn with."""
OTHER = {"image", "mask_image", "control_image", "video", "num_frames", "audio"}
"""What only the calls of pipelines take that need, or draw, something else."""


def _undescribed(class_name: str) -> Family | None:
    """Return careful defaults for a text-to-image pipeline of diffusers that no family describes; None for others."""
    import diffusers  # takes seconds, and a base of a known family does not need it

    kind = getattr(diffusers, class_name, None)
    if not isinstance(kind, type) or not hasattr(kind, "encode_prompt"):
        return None
    takes = inspect.signature(kind.__call__).parameters
    if not takes.keys() >= ASKED or takes.keys() & OTHER:
        return None
    steps, scale = (takes[key].default if key in takes else None for key in ("num_inference_steps", "guidance_scale"))
    height, width = (takes[key].default if key in takes else None for key in ("height", "width"))
    return Family(
        title=class_name,
        pipeline=f"diffusers:{class_name}",
        steps=steps if isinstance(steps, int) else 50,
        guidance="guidance_scale" if "guidance_scale" in takes else None,
        scale=float(scale) if isinstance(scale, int | float) else 5.0,
        size=(height, width) if isinstance(height, int) and isinstance(width, int) else None,
        one_prompt=True,
        text_keys=(),
        known=False,
    )


def family_of(pipeline: Any) -> Family:
    """Return the family of a loaded pipeline.

    Raises:
        TypeError: it is of no family.
    """
    for kind in type(pipeline).__mro__:
        family = find_family(kind.__name__)
        if family is not None:
            return family.of(pipeline.config)
    family = _undescribed(type(pipeline).__name__)
    if family is not None:
        return family
    raise TypeError(f"{type(pipeline).__name__} draws no image from a prompt alone")
