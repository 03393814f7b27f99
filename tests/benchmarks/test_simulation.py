"""The simulation of many workers: its arithmetic against closed forms, and how well the real schedule fills them."""

from __future__ import annotations

import pytest

from benchmarks.scale_simulation import KINDS, Outcome, Simulation, World, planned

FOR_EVER = float("inf")


def simulated(workers: int, life: float, seed: int = 0) -> Outcome:
    return Simulation(planned(200, 10, 20), World(workers, life=life, seed=seed)).run()


def test_one_worker_that_is_never_lost_is_the_ideal() -> None:
    """200 prompts x 10 seeds x 49 models at one rate: the makespan is start-up and images / rate, nothing else."""
    outcome = simulated(1, FOR_EVER)
    assert outcome.images == outcome.drawn["needed"] == 200 * 10 * 49
    assert outcome.efficiency == pytest.approx(1.0)
    assert any(60 + 45 <= outcome.makespan - outcome.images / rate <= 300 + 45 for rate, _ in KINDS.values())


@pytest.mark.parametrize(("life", "least"), [(FOR_EVER, 0.9), (7200.0, 0.9), (900.0, 0.8)])
def test_a_hundred_mixed_workers_come_near_the_ideal(life: float, least: float) -> None:
    outcome = simulated(100, life)
    assert least < outcome.efficiency <= 1
    assert outcome.given_up == 0
    assert outcome.drawn["needed"] == outcome.images, "every image once"
    assert (outcome.losses > 0) is (life < FOR_EVER)


def test_a_simulation_is_repeatable() -> None:
    one, other = simulated(20, 900.0, seed=3), simulated(20, 900.0, seed=3)
    assert (one.makespan, one.losses, one.drawn) == (other.makespan, other.losses, other.drawn)
