"""Plans and schedules are pure: what is drawn together, in which order, and what happens to lost work."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from pathlib import Path

import pytest

from raymap.plan.blocks import Plan, Unit, make_plan, noise_pairs
from raymap.plan.schedule import RETRIES, Schedule, workers_wanted
from raymap.study.adapter import BASE, AdapterInfo
from raymap.study.file import load_study
from raymap.study.model import Study
from tests.small_study import small_study

ADAPTERS = tuple(AdapterInfo(f"a{k}", "lora", f"s{k}", "object", "0" * 64) for k in range(3))


def plan_of(study: Study) -> Plan:
    return make_plan(study, ADAPTERS, {"base": "b"})


@pytest.fixture
def small(tmp_path: Path) -> Study:
    return load_study(small_study(tmp_path))


@pytest.mark.parametrize(("seeds", "batch"), [(2, 4), (3, 4), (5, 16), (10, 4), (7, 7), (2, 2)])
def test_every_prompt_and_seed_is_planned_once_in_one_batch_shape(tmp_path: Path, seeds: int, batch: int) -> None:
    study = load_study(small_study(tmp_path, seeds=seeds, batch_size=batch))
    plan = plan_of(study)
    items = [item for block in plan.blocks for item in block.items]
    assert sorted((i.prompt_id, i.seed) for i in items) == sorted(
        itertools.product((p.id for p in study.prompts), study.seeds)
    )
    assert all(len(block.items) <= batch for block in plan.blocks)


@pytest.mark.parametrize(("seeds", "batch"), [(2, 4), (3, 4), (6, 8), (10, 4), (10, 16)])
def test_noise_pairs_join_two_seeds_of_one_prompt(tmp_path: Path, seeds: int, batch: int) -> None:
    plan = plan_of(load_study(small_study(tmp_path, seeds=seeds, batch_size=batch)))
    pairs = [(b.items[i], b.items[j]) for b in plan.blocks for i, j in b.pairs]
    assert all(one.prompt_id == other.prompt_id and one.seed != other.seed for one, other in pairs)
    assert len(pairs) == 7 * (1 if seeds == 2 else 3 if seeds in (3, 6) or batch >= seeds else len(noise_pairs(batch)))


def test_four_seeds_give_all_noise_pairs_and_six_or_more_disjoint_ones() -> None:
    assert noise_pairs(2) == ((0, 1),)
    assert noise_pairs(3) == ((0, 1), (0, 2), (1, 2))
    assert noise_pairs(4) == noise_pairs(5) == ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))
    assert noise_pairs(10) == ((0, 1), (2, 3), (4, 5))


@pytest.mark.parametrize(
    "change",
    [{"seeds": 3}, {"sampler": {"steps": 4, "guidance_scale": 3.0}}, {"batch_size": 6}, {"name": "small"}],
)
def test_the_digest_changes_with_whatever_decides_a_pixel(
    tmp_path: Path, small: Study, change: dict[str, object]
) -> None:
    other = load_study(small_study(tmp_path, **change))
    same = change == {"name": "small"}
    assert (plan_of(other).digest == plan_of(small).digest) is same


def test_the_digest_ignores_what_decides_no_pixel(tmp_path: Path, small: Study) -> None:
    other = load_study(small_study(tmp_path, images="report", resources={"workers": 1}))
    assert plan_of(other).digest == plan_of(small).digest


def played(schedule: Schedule, workers: int) -> list[tuple[int, Unit]]:
    """Let workers take and finish units in turn until none is left; return (worker, unit)."""
    order: list[tuple[int, Unit]] = []
    idle: set[int] = set()
    while len(idle) < workers:
        for worker in range(workers):
            unit = schedule.next_for(worker)
            if unit is None:
                idle.add(worker)
            else:
                order.append((worker, unit))
                schedule.finish(unit)
    return order


def test_a_schedule_hands_out_every_unit_once_and_each_part_after_its_base(small: Study) -> None:
    plan = plan_of(small)
    order = played(Schedule(plan, set()), 2)
    adapted = [u for _, u in order if u.adapter != BASE]
    assert sorted(adapted) == sorted(u for u in plan.units if u.adapter != BASE)
    for worker, unit in order:
        mine = [u for w, u in order if w == worker and u.block == unit.block]
        assert mine[0].adapter == BASE


def test_blocks_are_handed_out_whole_while_any_wait(small: Study) -> None:
    plan = plan_of(small)
    schedule = Schedule(plan, set())
    taken = [(worker, schedule.next_for(worker)) for _ in range(len(plan.blocks)) for worker in (0, 1)]
    owners = {(unit.block, worker) for worker, unit in taken if unit}
    assert len(owners) == len({block for block, _ in owners})


def test_the_last_block_is_halved_once_its_base_is_committed(small: Study) -> None:
    plan = plan_of(small)
    schedule = Schedule(plan, {u for u in plan.units if u.block > 0})
    assert schedule.worth() == 1
    base = schedule.next_for(0)
    assert base == Unit(0, BASE)
    assert schedule.next_for(1) is None
    assert schedule.worth() == 2
    schedule.finish(base)
    adapted = [Unit(0, a.name) for a in plan.adapters]
    assert [schedule.next_for(1), schedule.next_for(1)] == [base, adapted[1]]
    assert [schedule.next_for(0), schedule.next_for(1)] == [adapted[0], adapted[2]]
    assert schedule.worth() == 0


def test_as_many_workers_are_wanted_as_have_something_to_do(small: Study) -> None:
    plan = plan_of(small)
    schedule = Schedule(plan, set())
    blocks = len(plan.blocks)
    assert workers_wanted(schedule, 1, 2) == min(2, blocks)
    assert workers_wanted(schedule, 1, 100) == blocks
    assert workers_wanted(schedule, 50, 100) == 50
    played(schedule, 2)
    assert workers_wanted(schedule, 5, 100) == 0


def test_a_resumed_block_gets_its_base_batch_back_first(small: Study) -> None:
    plan = plan_of(small)
    done = {u for u in plan.units if u.block == 0 and u.adapter != "a2"} | {u for u in plan.units if u.block > 0}
    schedule = Schedule(plan, done)
    assert [schedule.next_for(0), schedule.next_for(0), schedule.next_for(0)] == [Unit(0, BASE), Unit(0, "a2"), None]


def test_whole_blocks_go_before_started_ones(small: Study) -> None:
    plan = plan_of(small)
    schedule = Schedule(plan, {Unit(0, BASE), Unit(0, "a0")})
    first = schedule.next_for(0)
    assert first is not None
    assert first.block == 1


def test_a_lost_worker_loses_no_unit(small: Study) -> None:
    plan = plan_of(small)
    schedule = Schedule(plan, set())
    first, second = schedule.next_for(0), schedule.next_for(0)
    assert first is not None
    assert second is not None
    schedule.finish(first)
    assert schedule.lose(0, [second]) == []
    rest = [unit for _, unit in played(schedule, 1)]
    assert rest[:2] == [first, second]
    assert set(rest) == set(plan.units)


def test_what_a_leaving_worker_has_not_begun_goes_to_others(small: Study) -> None:
    plan = plan_of(small)
    schedule = Schedule(plan, set())
    begun = {schedule.next_for(0), schedule.next_for(0)}
    schedule.lose(0, [])
    rest = {unit for _, unit in played(schedule, 1)}
    assert rest | begun == set(plan.units)
    assert not any(unit.adapter != BASE for unit in rest & begun)


def test_who_is_let_go_holds_no_part_and_what_it_held_comes_back(small: Study) -> None:
    schedule = Schedule(plan_of(small), set())
    waiting = schedule.worth()
    assert not schedule.holds(0)
    first = schedule.next_for(0)
    assert first is not None
    assert schedule.holds(0)
    schedule.lose(0, [first])
    assert not schedule.holds(0)
    assert schedule.worth() == waiting
    for _ in range(len(ADAPTERS) + 1):
        schedule.next_for(1)
    assert not schedule.holds(1)


def test_a_unit_whose_workers_keep_dying_is_given_up(small: Study) -> None:
    schedule = Schedule(plan_of(small), set())
    given_up: list[Unit] = []
    for worker in range(RETRIES + 1):
        unit = schedule.next_for(worker)
        assert unit is not None
        given_up += schedule.lose(worker, [unit])
    assert given_up == [Unit(0, BASE)]
    assert given_up[0] in schedule.failed


def test_a_failed_base_batch_takes_its_block_with_it(small: Study) -> None:
    plan = plan_of(small)
    schedule = Schedule(plan, set())
    base = schedule.next_for(0)
    assert base is not None
    schedule.fail(base)
    assert schedule.failed == {u for u in plan.units if u.block == base.block}
    following = schedule.next_for(0)
    assert following is not None
    assert following.block != base.block


@pytest.mark.parametrize("seed", range(30))
def test_whatever_is_lost_every_unit_is_committed_and_none_twice(small: Study, seed: int) -> None:
    """Workers come, commit, and die at random; only what was lost too often, and its block's rest, is given up."""
    plan, rng = plan_of(small), random.Random(seed)
    schedule, committed = Schedule(plan, set()), Counter[Unit]()
    held: dict[int, list[Unit]] = {0: [], 1: [], 2: []}
    for step in range(10_000):
        if not schedule.worth() and not any(held.values()):
            break
        worker = rng.choice(list(held))
        if rng.random() < 0.03:
            schedule.lose(worker, held.pop(worker))
            held[100 + step] = []
        elif held[worker] and rng.random() < 0.5:
            done = held[worker].pop(rng.randrange(len(held[worker])))
            schedule.finish(done)
            committed[done] += 1
        elif len(held[worker]) < 2:
            unit = schedule.next_for(worker)
            if unit is not None and not (unit.adapter == BASE and schedule.has_base(unit.block)):
                held[worker].append(unit)
    else:
        pytest.fail("never ended")
    assert set(committed) | schedule.failed == set(plan.units)
    assert all(times == 1 for times in committed.values())


def sharing(small: Study, names: int, owner: float, other: float) -> tuple[Schedule, list[Unit]]:
    """Return a schedule whose one block worker 0 has begun, and what worker 1 gets of it: paces in seconds a unit."""
    adapters = tuple(AdapterInfo(f"a{k:02d}", "lora", "s", "object", "0" * 64) for k in range(names))
    plan = make_plan(small, adapters, {})
    schedule = Schedule(plan, {u for u in plan.units if u.block > 0})
    base = schedule.next_for(0)
    assert base is not None
    schedule.finish(base)
    schedule.took(0, owner)
    schedule.took(1, other)
    got: list[Unit] = []
    while (unit := schedule.next_for(1)) is not None and len(got) <= names:
        got.append(unit)
        if len(got) > 1 and unit.adapter == BASE:
            break
    return schedule, got


@pytest.mark.parametrize(("owner", "other", "taken"), [(1.0, 1.0, 6), (4.0, 1.0, 11), (1.0, 4.0, 2)])
def test_a_part_is_shared_so_that_both_workers_end_together(
    small: Study, owner: float, other: float, taken: int
) -> None:
    """Of 12 units k with (k + 1) x other = (12 - k + 1) x owner, in whole units: 6, 10.2 and 1.8."""
    _, got = sharing(small, 12, owner, other)
    assert got[0] == Unit(0, BASE)
    assert len([u for u in got if u.adapter != BASE]) == taken


def test_nothing_is_taken_from_a_worker_that_ends_sooner_alone(small: Study) -> None:
    schedule, got = sharing(small, 2, 1.0, 5.0)
    assert got == []
    schedule.took(2, 0.1)
    assert schedule.next_for(2) == Unit(0, BASE), "a faster worker is still asked"


def test_a_slow_worker_has_one_unit_in_flight_once_no_block_waits(small: Study) -> None:
    plan = plan_of(small)
    schedule = Schedule(plan, set())
    schedule.took(0, 1.0)
    schedule.took(1, 5.0)
    assert schedule.depth(1, 2) == 2
    for worker in range(len(plan.blocks)):
        schedule.next_for(worker)
    assert (schedule.depth(0, 2), schedule.depth(1, 2), schedule.depth(3, 2)) == (2, 1, 1)
