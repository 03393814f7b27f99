"""What Ray exports of a run, for Prometheus: images, failures, workers, seconds of each stage."""

from __future__ import annotations

from ray.util.metrics import Counter, Gauge

STAGES = ("swap_s", "draw_s", "score_s")


class Metrics:
    """Ray metrics of a drawing run, recorded by the driver; names start with `ray_raymap_` in Prometheus.

    A stage's seconds are counters, because Ray exports a histogram's sum from the middles of its buckets: a mean is
    their rate over that of images.
    """

    def __init__(self) -> None:
        self._images = Counter("raymap_images", "Images drawn, scored and committed.")
        self._failures = Counter("raymap_failures", "Batches that could not be drawn or scored.")
        self._in_flight = Gauge("raymap_in_flight", "Batches between generator and commit.")
        self._up = Gauge("raymap_workers_up", "Workers that draw.")
        self._asked = Gauge("raymap_workers_asked", "Workers that Ray was asked for.")
        self._stages = {
            stage: Counter(f"raymap_{stage}econds", f"Seconds of all batches' {stage.removesuffix('_s')}.")
            for stage in STAGES
        }

    def committed(self, images: int, seconds: dict[str, float], in_flight: int) -> None:
        """Count a committed batch and its stages' seconds."""
        self._images.inc(images)
        self._in_flight.set(in_flight)
        for stage, value in seconds.items():
            if value:  # Ray refuses to count zero
                self._stages[stage].inc(value)

    def failed(self) -> None:
        """Count a failed batch."""
        self._failures.inc()

    def workers(self, up: int, asked: int) -> None:
        """Say how many workers there are."""
        self._up.set(up)
        self._asked.set(asked)
