"""The verdict as JUnit XML, which continuous integration reads."""

from __future__ import annotations

from collections.abc import Mapping
from xml.etree import ElementTree

from raymap.analysis.decide.answers import Verdict
from raymap.display.text import plain


def junit(verdict: Verdict, name: str, prompts: Mapping[str, str]) -> bytes:
    """Return one test suite with one case per adapter and limit; failures and errors name prompts.

    A limit that is exceeded is a failure, one that the seeds cannot decide an error.

    Args:
        name: of the suite.
        prompts: the texts of prompts by their ids.
    """
    held = [(adapter, limit) for adapter in verdict["adapters"] for limit in adapter["limits"]]
    found = [limit["decision"] for _, limit in held]
    counts = {"tests": len(held), "failures": found.count("fail"), "errors": found.count("undecided")}
    attributes = {key: str(n) for key, n in counts.items()}
    root = ElementTree.Element("testsuites", attributes)
    suite = ElementTree.SubElement(root, "testsuite", {"name": plain(name), **attributes})
    ElementTree.SubElement(suite, "system-out").text = plain(verdict["headline"])
    for adapter, limit in held:
        title = f"{limit['limit']} at most {limit['at_most']:g}"
        case = ElementTree.SubElement(suite, "testcase", {"classname": plain(adapter["adapter"]), "name": title})
        if limit["decision"] == "pass":
            continue
        kind = "failure" if limit["decision"] == "fail" else "error"
        message = "; ".join([*verdict["refused"], limit["message"]])
        entry = ElementTree.SubElement(case, kind, {"message": plain(message), "type": limit["limit"]})
        entry.text = "\n".join(f"{prompt} {plain(prompts.get(prompt, prompt))}" for prompt in limit["look"])
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"
