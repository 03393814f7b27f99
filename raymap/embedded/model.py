"""Paths of the embedded weights."""

from __future__ import annotations

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
PIPELINE = WEIGHTS / "pipeline"
PIPELINES = {"embedded": PIPELINE}
"""The embedded bases by their names in a study."""
CLIP = WEIGHTS / "clip"
LPIPS = WEIGHTS / "lpips" / "lpips_squeeze.safetensors"
