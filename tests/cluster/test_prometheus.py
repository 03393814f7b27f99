"""A run's metrics as Prometheus would read them from the node."""

from __future__ import annotations

import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator

import pytest

from tests.commands import HANG_S

DRIVER = """
import ray
from raymap.cluster.metrics import Metrics

ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
metrics = Metrics()
metrics.workers(up=1, asked=2)
metrics.committed(16, {"swap_s": 0.25, "draw_s": 4.0, "score_s": 0.5}, in_flight=3)
metrics.committed(16, {"swap_s": 0.25, "draw_s": 4.0, "score_s": 0.5}, in_flight=2)
metrics.failed()
print("port", ray.nodes()[0]["MetricsExportPort"], flush=True)
input()
"""


@pytest.fixture
def port() -> Iterator[int]:
    """The port at which the node of a driver exports metrics.

    The driver is a process of its own: a counter goes on counting for as long as its process lives, whatever it was
    that counted before.
    """
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as driver:
        assert driver.stdout is not None
        said = next((line for line in driver.stdout if line.startswith("port ")), "")
        assert said, "the driver ended before it had counted"
        yield int(said.removeprefix("port "))
        driver.communicate("\n", timeout=HANG_S)


def test_images_failures_workers_and_stages_can_be_scraped(port: int) -> None:
    expected = {
        "images_total": 32, "failures_total": 1, "in_flight": 2, "workers_up": 1, "workers_asked": 2,
        "swap_seconds_total": 0.5, "draw_seconds_total": 8, "score_seconds_total": 1,
    }  # fmt: skip
    start, found = time.monotonic(), dict[str, float]()
    while not expected.items() <= found.items() and time.monotonic() - start < HANG_S:
        time.sleep(1)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=HANG_S) as answer:
            text = answer.read().decode()
        seen = re.findall(r"^ray_raymap_(\w+)\{.*\} (\S+)$", text, re.M)
        found |= {name: float(value) for name, value in seen}  # a gauge is exported when it was set, not ever after
    assert expected.items() <= found.items(), found
