"""Other programs that do a study's work with diffusers: what one would write without raymap.

    python -m raymap.bench.peers PROGRAM STUDY SCORES

PROGRAM is one of:

- `one` draws one image at a time.
- `batched` draws a batch at a time.
- `compiled` does so with the memory layout and compilation of the study's `speed`, which no other peer applies.
- `accelerate` splits the batches between processes; start it with `python -m torch.distributed.run`.
- `ray-data` draws batches in the actors of map_batches (raymap/bench/peers/ray_data.py).

Each draws base and adapters with the study's seeds and writes the study's scores: the same rows, by the same judges.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pyarrow as pa
import torch

from raymap.base.compile import speed_up
from raymap.bench.peers.plain import Drawer, Judges, chunks, items_of, work
from raymap.store.files import write_atomically
from raymap.store.folder import arrow_bytes
from raymap.study.file import load_study


def main(program: str, study_path: Path, scores: Path) -> None:
    """Do a study's work as one of the programs; print the seconds that it takes after the models are loaded."""
    study = load_study(study_path)
    if program == "ray-data":
        from raymap.bench.peers.ray_data import by_ray_data

        start = time.perf_counter()
        table = by_ray_data(study)
    elif program == "accelerate":
        from accelerate import PartialState
        from accelerate.utils import gather_object

        torch.set_num_threads(study.resources.threads_per_worker)
        state = PartialState(cpu=study.resources.device == "cpu")
        if study.resources.device == "cuda":
            torch.cuda.set_device(state.local_process_index)
        drawer, judges = Drawer(study), Judges(study)
        start = time.perf_counter()
        with state.split_between_processes(chunks(items_of(study), study.batch_size)) as own:
            table = pa.concat_tables(gather_object([work(drawer, judges, own)]))
        if not state.is_main_process:
            return
    else:
        drawer, judges = Drawer(study), Judges(study)
        if program == "compiled":
            speed_up(drawer.pipeline, study.speed)
        start = time.perf_counter()
        table = work(drawer, judges, chunks(items_of(study), 1 if program == "one" else study.batch_size))
    write_atomically(scores, arrow_bytes(table))
    sys.stdout.write(f"{time.perf_counter() - start}\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
