"""Pixels travel through Ray's shared memory: scorers see them without a copy, and cannot change them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from raymap.cluster.launch import runtime
from raymap.study import Resources


class Probe:
    """Stands where a scorer stands and tells where an argument's bytes lie."""

    def look(self, pixels: np.ndarray) -> dict[str, Any]:
        address = pixels.ctypes.data
        for line in Path("/proc/self/maps").read_text().splitlines():
            low, high = (int(x, 16) for x in re.split(r"[- ]", line)[:2])
            if low <= address < high:
                return {
                    "mapping": line.split(maxsplit=5)[-1],
                    "writeable": pixels.flags.writeable,
                    "owned": pixels.flags.owndata,
                }
        raise AssertionError("the address lies in no mapping")


class Source:
    """Stands where a generator stands."""

    def draw(self, seed: int) -> np.ndarray:
        return np.random.default_rng(seed).integers(0, 256, (16, 64, 64, 3), dtype=np.uint8)


@pytest.fixture
def local_ray() -> Iterator[None]:
    with runtime(Resources()):
        yield


def test_a_scorer_reads_pixels_from_shared_memory_read_only(local_ray: None) -> None:
    source, probes = ray.remote(Source).remote(), [ray.remote(Probe).remote() for _ in range(2)]
    pixels = source.draw.remote(3)
    for seen in ray.get([probe.look.remote(pixels) for probe in probes]):
        assert "/dev/shm" in seen["mapping"] or "plasma" in seen["mapping"], seen
        assert not seen["writeable"]
        assert not seen["owned"]
    assert np.array_equal(ray.get(pixels), Source().draw(3))
