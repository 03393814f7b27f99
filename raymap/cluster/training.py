"""Streams a study's trainings through trainers: a lost trainer is replaced, a failed training stops no other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError

from raymap.cluster.failures import Decision, Work, decide
from raymap.cluster.launch import Starts, cause, raised_by
from raymap.display.progress import Progress
from raymap.errors import IncompleteRunError
from raymap.personalize.orders import AdapterOrder
from raymap.plan.schedule import RETRIES
from raymap.store.folder import RunFolder

TICK_S = 0.5


@dataclass
class _Training:
    """A group of orders, its trainer, the steps that are done, and how many trainers it has lost."""

    orders: tuple[AdapterOrder, ...]
    trainer: Any = None
    done: int = 0
    losses: int = 0

    @property
    def name(self) -> str:
        return (
            self.orders[0].name if len(self.orders) == 1 else f"{self.orders[0].name} and {len(self.orders) - 1} more"
        )


def train_all(
    groups: tuple[tuple[AdapterOrder, ...], ...],
    folder: RunFolder,
    start: Callable[[], Any],
    workers: int,
    progress: Progress,
) -> None:
    """Train all groups, as many at once as there are workers; progress counts optimizer steps of each adapter.

    A group whose trainer is lost continues from its checkpoint with another one.

    Raises:
        IncompleteRunError: trainers do not start, or a training failed; all others are finished first.
    """
    trainings = _Trainings([_Training(group) for group in groups], folder, start, workers, progress)
    trainings.run()
    if trainings.failed:
        raise IncompleteRunError(f"training failed: {'; '.join(trainings.failed)}")


@dataclass
class _Trainings:
    """Hands waiting trainings to trainers that are up: one that was asked for may never come."""

    waiting: list[_Training]
    folder: RunFolder
    start: Callable[[], Any]
    workers: int
    progress: Progress
    starting: dict[Any, Any] = field(default_factory=dict)
    running: dict[Any, _Training] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    starts: Starts = field(default_factory=lambda: Starts("trainer"))

    def run(self) -> None:
        while self.waiting or self.running:
            self._staff()
            ready, _ = ray.wait([*self.running, *self.starting], num_returns=1, timeout=TICK_S)
            self.progress.tick()
            for ref in ready:
                if ref in self.starting:
                    self._welcome(ref)
                else:
                    self._advance(ref)
        self._staff()

    def _staff(self) -> None:
        """Ask for one trainer per waiting training, as far as there may be more, and let surplus ones go."""
        wanted = min(len(self.waiting), self.workers - len(self.running))
        while len(self.starting) < wanted:
            trainer = self.start()
            self.starting[trainer.ready.remote(self.folder.root)] = trainer
        for ref in list(self.starting)[wanted:]:
            ray.kill(self.starting.pop(ref))

    def _welcome(self, ref: Any) -> None:
        trainer = self.starting.pop(ref)
        if self.starts.answer(ref) is not None:
            self._give_work(trainer)

    def _give_work(self, trainer: Any) -> None:
        if not self.waiting:
            ray.kill(trainer)
            return
        training = self.waiting.pop(0)
        training.trainer = trainer
        folders = tuple(self.folder.adapter(order.name) for order in training.orders)
        scratch = self.folder.training(training.orders[0].name)
        steps = trainer.train.options(num_returns="streaming").remote(training.orders, folders, scratch)
        self.running[steps] = training
        self.progress.now(f"training {training.name}")

    def _advance(self, steps: Any) -> None:
        """Take a training's next report: the steps that it has done, its end, its failure, or its trainer's loss."""
        training = self.running.pop(steps)
        try:
            step = ray.get(next(steps))
        except StopIteration:
            self.progress.now(f"trained {training.name}")
            self._give_work(training.trainer)
        except RayError as error:
            if decide(Work.TRAINING, raised_by(error)) is Decision.GIVE_UP:
                self.failed.append(f"{training.name} ({cause(error)})")
                self._give_work(training.trainer)
                return
            ray.kill(training.trainer)  # it may only be out of reach, and would continue with the same checkpoint
            training.losses += 1
            if training.losses > RETRIES:
                self.failed.append(f"{training.name} ({cause(error)})")
            else:
                self.progress.note(f"a trainer was lost; {training.name} continues from its checkpoint")
                self.waiting.insert(0, training)
        else:
            self.progress.trained(max(0, step.done - training.done) * len(training.orders))
            training.done = max(training.done, step.done)
            self.running[steps] = training
