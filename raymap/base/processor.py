"""How fast this machine's processor multiplies matrices.

Numpy takes its number of threads when it is loaded, so that this file is run in a process of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

import numpy as np

SIDE = 768
SECONDS = 0.3
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
"""What the libraries that numpy multiplies with take their number of threads from."""


def matrix_speed(threads: int) -> float:
    """Return the FLOP/s of a float32 matrix product on this machine."""
    environment = os.environ | dict.fromkeys(THREADS, str(threads))
    measured = subprocess.run([sys.executable, "-P", __file__], env=environment, check=True, capture_output=True)
    return float(measured.stdout)


def _measure() -> float:
    a, b = np.random.default_rng(0).standard_normal((2, SIDE, SIDE), dtype=np.float32)
    a @ b
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < SECONDS:
        a @ b
        done += 1
    return 2 * SIDE**3 * done / (time.perf_counter() - start)


if __name__ == "__main__":
    sys.stdout.write(str(_measure()))
