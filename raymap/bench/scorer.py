"""Scores what a setup draws: in the worker's own process, or in a process beside it, as in a run."""

from __future__ import annotations

import warnings
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from torch import multiprocessing

from raymap.actors.batches import Drawn
from raymap.actors.scorer import Scorer
from raymap.actors.specs import ScorerSpec
from raymap.bench.models import quiet
from raymap.bench.setups import Setup
from raymap.errors import DrawingError
from raymap.plan.blocks import AdapterInfo, Block

DEPTH = 2
"""How many batches a scorer process may hold, including the one that it is scoring."""


class InlineScorer:
    """Scores images, hashes them and writes those that a run keeps: a block by the base, then under each adapter."""

    def __init__(self, setup: Setup, folder: Path) -> None:
        self._device = setup.device
        self._scorer = Scorer(
            ScorerSpec(setup.clip, setup.lpips, folder, "", keep_all=False, threads=setup.threads, device=setup.device)
        )
        self._base = np.empty(0)

    def take(self, block: Block, adapter: AdapterInfo | None, pixels: np.ndarray) -> None:
        """Score a batch, uint8 (N, H, W, 3), drawn by the base (`adapter` is None) or under an adapter.

        Raises:
            DrawingError: the images cannot be scored.
        """
        drawn = Drawn((False,) * len(block.items), self._device, {})
        if adapter is None:
            self._base = pixels
            self._scorer.score_base(block, pixels, drawn)
        else:
            self._scorer.score_adapted(block, adapter, pixels, drawn, self._base)

    def finish(self) -> None:
        """Do nothing: `take` has scored every batch already."""


class ScorerProcess:
    """An `InlineScorer` in a process of its own; shared memory holds the base's images and up to DEPTH batches more."""

    def __init__(self, setup: Setup, folder: Path, side: int, number: int) -> None:
        shape = (1 + DEPTH, setup.batch_size, side, side, 3)
        self._shared = torch.empty(shape, dtype=torch.uint8).share_memory_()
        context = multiprocessing.get_context("spawn")
        self._pipe, other_end = context.Pipe()
        # A daemon process does not outlive a worker that fails.
        context.Process(target=_serve, args=(other_end, setup, folder, number, self._shared), daemon=True).start()
        other_end.close()
        self._adapted = 0
        self._waiting = 1
        self.finish()

    def take(self, block: Block, adapter: AdapterInfo | None, pixels: np.ndarray) -> None:
        """Hand over a batch, uint8 (N, H, W, 3), as soon as there is room for it.

        Call `finish` before handing over the next block's base batch, which takes the place of the last one.

        Raises:
            DrawingError: these images, or earlier ones, cannot be scored.
            RuntimeError: the scorer failed in another way.
        """
        self._wait(DEPTH - 1)
        place = 0
        if adapter is not None:
            place = 1 + self._adapted % DEPTH
            self._adapted += 1
        self._shared[place].numpy()[:] = pixels
        self._pipe.send((block, adapter, place))
        self._waiting += 1

    def finish(self) -> None:
        """Wait until all batches are scored; raises the errors that `take` does."""
        self._wait(0)

    def _wait(self, most: int) -> None:
        while self._waiting > most:
            try:
                answer = self._pipe.recv()
            except EOFError:
                raise RuntimeError("the scorer process of a worker ended without reporting an error") from None
            if answer is not None:
                raise answer
            self._waiting -= 1


def _serve(pipe: Connection, setup: Setup, folder: Path, number: int, shared: torch.Tensor) -> None:
    """Score the batches that a pipe announces, answering each with None or an error, until its other end is closed."""
    start_process(setup, number)
    try:
        scorer = InlineScorer(setup, folder)
        pipe.send(None)
        while True:
            block, adapter, place = pipe.recv()
            scorer.take(block, adapter, shared[place].numpy())
            pipe.send(None)
    except EOFError:
        return
    except (RuntimeError, DrawingError) as error:
        pipe.send(error)


def start_process(setup: Setup, number: int) -> None:
    """Prepare one of a setup's processes: hide warnings and progress bars, and select the worker's own GPU."""
    warnings.filterwarnings("ignore", module="torchvision")  # lpips calls it in a deprecated way
    quiet()
    if setup.device == "cuda":
        torch.cuda.set_device(number)
