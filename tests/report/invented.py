"""The adapters and prompts that most reports of these tests are of."""

from __future__ import annotations

from raymap.study.suite import CATEGORIES

ADAPTERS = [
    (f"{category}-{method}", method, category, category)
    for category in ("face", "style")
    for method in ("textual_inversion", "lora", "custom_diffusion")
]
PROMPTS = [(f"a kettle of sort {k}", CATEGORIES[k % 6]) for k in range(18)]
