"""Turns a matplotlib drawing into a file for print, or into SVG that is written into a page."""

from __future__ import annotations

import io
import re
from collections.abc import Collection
from xml.etree import ElementTree

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.figure import Figure as Drawing

from raymap.report.figures import TIP

FORMATS = ("png", "svg", "pdf")
DPI = 200
UNDATED = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}
INK = {"#000000": "currentColor", "#ffffff": "var(--ground)"}
"""What the page makes of black and white, so that a drawing follows its light or dark scheme."""
HREF = "{http://www.w3.org/1999/xlink}href"
SETTINGS = {"stroke-linejoin": "round", "stroke-linecap": "butt", "fill": "currentColor", "role": "img"}
"""Attributes of an inline drawing; matplotlib writes the first two as a style sheet, which the page would refuse."""


def as_file(drawing: Drawing, kind: str) -> bytes:
    """Return a drawing as a file of one of FORMATS; the same drawing gives the same bytes."""
    data = io.BytesIO()
    with rc_context({"svg.hashsalt": "raymap"}):
        drawing.savefig(data, format=kind, dpi=DPI, bbox_inches="tight", metadata=UNDATED[kind])
    return data.getvalue()


def inline(drawing: Drawing, key: str) -> Markup:
    """Return a drawing as an `<svg>` element whose texts are texts, in the fonts and colours of the page around it.

    It needs no style sheet and no style attribute, which the page's policy would refuse.

    Args:
        key: of the figure, which keeps the ids of several drawings apart. The element `KEY-caption` labels the drawing.
    """
    data = io.BytesIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": key}):
        drawing.savefig(data, format="svg", bbox_inches="tight", metadata=UNDATED["svg"])
    svg = data.getvalue().decode()
    used = set(re.findall(r'href="#([^"]+)"', svg)) | set(re.findall(r"url\(#([^)]+)\)", svg))
    root = ElementTree.fromstring(svg)
    view = root.attrib["viewBox"]
    for element in list(root.iter()):
        element.tag = element.tag.rpartition("}")[2]
        _take_out(element, "metadata", "style")
        _simplify(element, used)
        element.tail = None
        _let_flow(element)
    for element in root.iter():
        element.text = element.text if len(element) == 0 else None  # the rest only indents
    root.attrib.clear()
    root.attrib |= {"viewBox": view, "aria-labelledby": f"{key}-caption", **SETTINGS}
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _take_out(element: ElementTree.Element, *names: str) -> None:
    for child in list(element):
        if child.tag.rpartition("}")[2] in names:
            element.remove(child)


def _simplify(element: ElementTree.Element, used: Collection[str]) -> None:
    """Make attributes of an element's style, leave out its font, keep an id only if it is used, and add its tip."""
    for declaration in element.attrib.pop("style", "").split(";"):
        name, _, value = (part.strip() for part in declaration.partition(":"))
        if name and name != "font-family":
            element.set(name, INK.get(value, value))
    if (target := element.attrib.pop(HREF, None)) is not None:
        element.set("href", target)
    own = element.attrib.pop("id", "")
    if own in used:
        element.set("id", own)
    elif own.startswith(TIP):
        element.set("class", "tip")
        title = ElementTree.Element("title")
        title.text = own.removeprefix(TIP)
        element.insert(0, title)


def _let_flow(text: ElementTree.Element) -> None:
    """Join the characters of a formula: matplotlib places each one by the widths of its own font."""
    last: tuple[ElementTree.Element, dict[str, str], float] | None = None
    for character in list(text) if text.tag == "text" else ():
        x, y = character.attrib.pop("x"), float(character.attrib.pop("y"))
        look, character.tail = dict(character.attrib), None
        if last is None:
            character.attrib |= {"x": x, "y": f"{y:g}"}
            text.text = None
        elif (look, y) == last[1:]:
            last[0].text = (last[0].text or "") + (character.text or "")
            text.remove(character)
            continue
        else:
            character.set("dy", f"{y - last[2]:g}")
        last = character, look, y
