"""Measures what raymap reaches on a GPU, in one command of some eight minutes, without a network and without Ray.

    python -m benchmarks.gpu [--output build/gpu.jsonl] [--parts drawing,swaps] [--minutes 8]
    python -m benchmarks.gpu --trial cpu        # tiny sizes, which try the script itself; or --trial cuda

Models are of the real sizes with random weights, as are the judges. Every figure is printed and appended to the output
file when it is there; the same command continues with what that file lacks. A part that fails is named with its error,
and the others are measured. No part begins after the minutes are over.
"""

from __future__ import annotations

import argparse
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.gpu.denoisers import large, ways
from benchmarks.gpu.drawing import Rows, drawing, embedded, swaps
from benchmarks.gpu.record import Record
from benchmarks.gpu.sizes import GPU, TRIAL, Sizes
from benchmarks.gpu.timing import matrix_peak
from benchmarks.gpu.training import training
from raymap.bench.models import quiet


def device(sizes: Sizes) -> Rows:
    """Measure the speed of matrix products, the peak that other figures are compared with."""
    name = torch.cuda.get_device_name() if sizes.device == "cuda" else "CPU"
    peaks = {
        str(dtype).removeprefix("torch."): matrix_peak(sizes.device, dtype, sizes.matrix) / 1e12
        for dtype in (torch.bfloat16, torch.float16, torch.float32)
    }
    figures = {f"{key}_tflops": value for key, value in peaks.items()}
    yield f"matrix products on {name}, torch {torch.__version__}", figures


PARTS: dict[str, Callable[[Sizes], Rows]] = {
    "device": device,
    "drawing": drawing,
    "swaps": swaps,
    "ways": ways,
    "training": training,
    "large": large,
    "embedded": embedded,
}


def main() -> None:
    """Measure the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("build/gpu.jsonl"))
    parser.add_argument("--parts", type=lambda text: text.split(","), default=list(PARTS))
    parser.add_argument("--minutes", type=float, default=8.0, help="after which no further part begins")
    parser.add_argument("--trial", choices=("cpu", "cuda"), help="measure tiny sizes on this device")
    args = parser.parse_args()
    sizes, record, start = GPU, Record(args.output), time.monotonic()
    if args.trial:
        sizes = replace(TRIAL, device=args.trial, compile="default" if args.trial == "cuda" else "none")
    quiet()
    for part in args.parts:
        if part in record:
            continue
        if time.monotonic() - start > 60 * args.minutes:
            record.add(f"{part}, not measured", {"error": "the minutes were over"})
            continue
        began = time.monotonic()
        try:
            for name, figures in PARTS[part](sizes):
                record.add(name, figures)
            record.add(part, {"seconds": time.monotonic() - began})
        except Exception as error:  # the other parts can be measured nevertheless
            traceback.print_exc()
            record.add(part, {"error": f"{type(error).__name__}: {error}"})
        torch.compiler.reset()
        if sizes.device == "cuda":
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
