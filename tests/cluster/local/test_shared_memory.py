"""Pixels travel through Ray's shared memory: scorers see them without a copy, and cannot change them."""

from __future__ import annotations

import numpy as np
import ray

from raymap.testing.actors import ImageSource, MemoryProbe


def test_a_scorer_reads_pixels_from_shared_memory_read_only(local_ray: None) -> None:
    source, probes = ray.remote(ImageSource).remote(), [ray.remote(MemoryProbe).remote() for _ in range(2)]
    pixels = source.draw.remote(3)
    for seen in ray.get([probe.look.remote(pixels) for probe in probes]):
        assert "/dev/shm" in seen["mapping"] or "plasma" in seen["mapping"], seen
        assert not seen["writeable"]
        assert not seen["owned"]
    assert np.array_equal(ray.get(pixels), ImageSource().draw(3))
