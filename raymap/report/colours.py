"""Colour scales that are perceptually even and safe for colour-blind readers, for a light and for a dark ground."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import Colormap, LinearSegmentedColormap, to_hex, to_rgb

STOPS = 33
"""How many colours a scale has."""
ZERO = {"light": "#f3f2f0", "dark": "#1b1c22"}
"""The colour of no shift, which is almost that of the ground, so that only shifts have a colour."""
FADE = 4
"""How many stops a sequential scale takes to leave the colour of zero."""
SEQUENTIAL = {"light": ("magma_r", 0.06, 0.93), "dark": ("magma", 0.18, 1.0)}
DIVERGING = {"light": ("RdBu", 0.04, 0.96), "dark": ("berlin_r", 0.0, 1.0)}
"""matplotlib's colour map, and the part of it that is used. Warm is more; for signed shifts warm is degradation."""
SUBJECTS = {"face": "#0072B2", "object": "#D55E00", "style": "#009E73", "control": "#777777", "unknown": "#CC79A7"}
"""Colours of subject categories, from Okabe & Ito's set for colour-blind readers (2008)."""


def stops(ground: str, signed: bool) -> list[str]:
    """Return a scale's colours from its low to its high end, as #rrggbb."""
    name, low, high = (DIVERGING if signed else SEQUENTIAL)[ground]
    scale = colormaps[name]
    colours = scale(np.linspace(low, high, STOPS))[:, :3]
    zero, reach = (STOPS // 2, 1) if signed else (0, FADE)
    share = np.clip(1 - np.abs(np.arange(STOPS) - zero) / reach, 0, 1)[:, None]
    return [to_hex(tuple(colour.tolist())) for colour in share * np.array(to_rgb(ZERO[ground])) + (1 - share) * colours]


def sequential() -> Colormap:
    """Return the sequential scale on a light ground as a colour map; what was not measured is grey."""
    return LinearSegmentedColormap.from_list("shift", stops("light", signed=False)).with_extremes(bad="#bbbbbb")


def readable_on(colour: str) -> str:
    """Return black or white, whichever has the higher contrast (relative luminance of WCAG 2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#000" if (luminance + 0.05) ** 2 > 1.05 * 0.05 else "#fff"


def palette() -> str:
    """Return the style rules of the classes s0 to s32 (sequential) and d0 to d32 (diverging), for light and dark."""
    rules = []
    for prefix, signed in (("s", False), ("d", True)):
        for k, (light, dark) in enumerate(zip(stops("light", signed), stops("dark", signed), strict=True)):
            ink = f"light-dark({readable_on(light)},{readable_on(dark)})"
            rules.append(f".{prefix}{k}{{background-color:light-dark({light},{dark});color:{ink}}}")
    return "\n".join(rules)
