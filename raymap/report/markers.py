"""What stands for a method in scatter plots: in print and on the page the same shape."""

from __future__ import annotations

from raymap.study.methods.method import Marker, Method
from raymap.study.methods.registry import find_method

PATHS: dict[Marker, str] = {
    "o": "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0 -10 0z",
    "s": "M-4.5 -4.5h9v9h-9z",
    "^": "M0 -6l6 10.5h-12z",
    "v": "M0 6l6 -10.5h-12z",
    "D": "M0 -6l6 6l-6 6l-6 -6z",
    "P": "M-2 -6h4v4h4v4h-4v4h-4v-4h-4v-4h4z",
    "X": "M-6 -3l3 -3l3 3l3 -3l3 3l-3 3l3 3l-3 3l-3 -3l-3 3l-3 -3l3 -3z",
}
"""SVG paths of markers, in pixels about the origin."""


def marker_of(method: str) -> Marker:
    """Return the marker that a method's description names; methods that are not known here share the default one."""
    described = find_method(method)
    return described.marker if described else Method.marker


def marker_path(method: str) -> str:
    """Return the SVG path of a method's marker."""
    return PATHS[marker_of(method)]
