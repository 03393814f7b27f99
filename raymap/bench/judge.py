"""Scores what a setup draws: in the worker's own process, or in one beside it as in a run."""

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
"""How many batches may be with a scorer apart, the one that it is scoring included."""


class Judge:
    """Scores pictures, hashes them and writes those that a run keeps: a block by the base, then under each adapter."""

    def __init__(self, setup: Setup, folder: Path) -> None:
        self._device = setup.device
        self._scorer = Scorer(
            ScorerSpec(setup.clip, setup.lpips, folder, "", keep_all=False, threads=setup.threads, device=setup.device)
        )
        self._base = np.empty(0)

    def take(self, block: Block, adapter: AdapterInfo | None, pixels: np.ndarray) -> None:
        """Score a batch, uint8 (N, H, W, 3); no adapter is the base.

        Raises:
            DrawingError: pictures that cannot be scored.
        """
        how = Drawn((False,) * len(block.items), self._device, {})
        if adapter is None:
            self._base = pixels
            self._scorer.score_base(block, pixels, how)
        else:
            self._scorer.score_adapted(block, adapter, pixels, how, self._base)

    def finish(self) -> None:
        """Return once all that was taken is scored, which it is."""


class JudgeApart:
    """A `Judge` in a process of its own: pictures lie in memory that both share, the base's and DEPTH batches more."""

    def __init__(self, setup: Setup, folder: Path, side: int, number: int) -> None:
        shape = (1 + DEPTH, setup.batch_size, side, side, 3)
        self._shared = torch.empty(shape, dtype=torch.uint8).share_memory_()
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        # A daemon, so that it does not outlive a worker that fails.
        context.Process(target=_serve, args=(theirs, setup, folder, number, self._shared), daemon=True).start()
        theirs.close()
        self._adapted = 0
        self._waiting = 1
        self.finish()

    def take(self, block: Block, adapter: AdapterInfo | None, pixels: np.ndarray) -> None:
        """Hand a batch over, once there is room for it. A block's base may be handed over once the last is finished.

        Raises:
            DrawingError: pictures that cannot be scored, these or earlier ones.
            RuntimeError: the scorer failed otherwise.
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
        """Return once all that was taken is scored; raises as `take`."""
        self._wait(0)

    def _wait(self, most: int) -> None:
        while self._waiting > most:
            try:
                answer = self._pipe.recv()
            except EOFError:
                raise RuntimeError("the scorer beside a worker ended without a word") from None
            if answer is not None:
                raise answer
            self._waiting -= 1


def _serve(pipe: Connection, setup: Setup, folder: Path, number: int, shared: torch.Tensor) -> None:
    """Score what comes through a pipe, answering None or an error, until its other end is closed."""
    start_process(setup, number)
    try:
        judge = Judge(setup, folder)
        pipe.send(None)
        while True:
            block, adapter, place = pipe.recv()
            judge.take(block, adapter, shared[place].numpy())
            pipe.send(None)
    except EOFError:
        return
    except (RuntimeError, DrawingError) as error:
        pipe.send(error)


def start_process(setup: Setup, number: int) -> None:
    """Do what each of a setup's processes begins with: warnings and bars off, the worker's own GPU chosen."""
    warnings.filterwarnings("ignore", module="torchvision")  # lpips asks it in a way of yesterday
    quiet()
    if setup.device == "cuda":
        torch.cuda.set_device(number)
