"""The adapters and prompts that most reports of these tests are of."""

from __future__ import annotations

from raymap.study.suite import CATEGORIES

ADAPTERS = [
    (f"{category}-{method}", method, category, category)
    for category in ("face", "style")
    for method in ("textual_inversion", "lora", "custom_diffusion")
]
PROMPTS = [(f"a kettle of sort {k}", CATEGORIES[k % 6]) for k in range(18)]
RAGGED = [
    ("a-lora", "lora", "a", "face"),
    ("b-lora", "lora", "b", "style"),
    ("c-textual_inversion", "textual_inversion", "a", "face"),
    ("identity-lora", "identity", "identity", "control"),
    ("u-lora", "lora", "u", "unknown"),
]
"""Adapters of which a report has little to say: controls, an unknown category, an identity."""
