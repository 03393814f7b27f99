"""What a worker needs must be in its node's reach: it says what is not, at once, and little travels to it."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import ray
from ray import cloudpickle

from raymap.actors.specs import GeneratorSpec, ScorerSpec
from raymap.adapters.read import load_adapter
from raymap.base.model import Base
from raymap.cluster.launch import Starts, Worker, start_pair
from raymap.embedded.model import PIPELINE
from raymap.errors import IncompleteRunError, InputError
from raymap.store.lock import check_seen, locked
from raymap.study.model import Resources, SamplerSettings
from raymap.testing.actors import NO_DEVICE, StubGenerator, StubScorer

Call = Callable[..., tuple[int, str]]
NOWHERE = InputError("/data/run", "cannot be seen from node n7", "give an --output that every node reaches")


@pytest.mark.parametrize(("drawing", "scoring"), [(NOWHERE, None), (None, NOWHERE)])
def test_a_worker_whose_node_lacks_something_ends_the_run_with_the_reason(
    local_ray: None, drawing: Exception | None, scoring: Exception | None
) -> None:
    worker = start_pair(StubGenerator, drawing, StubScorer, scoring, Resources())
    with pytest.raises(IncompleteRunError) as caught:
        Starts("worker").answer(worker.ready)
    assert str(caught.value) == f"a worker cannot start: {NOWHERE}"
    worker.stop()


def test_a_worker_that_is_lost_while_it_starts_is_no_reason_to_end(local_ray: None) -> None:
    worker = start_pair(StubGenerator, None, StubScorer, "killed", Resources())
    starts = Starts("worker")
    assert starts.answer(worker.ready) is None
    assert starts.failed == 1
    worker.stop()


def test_a_worker_is_up_once_both_its_actors_are(local_ray: None) -> None:
    worker: Worker = start_pair(StubGenerator, None, StubScorer, None, Resources())
    assert Starts("worker").answer(worker.ready) == NO_DEVICE
    worker.stop()


def test_a_node_sees_the_run_folder_that_its_driver_holds(tmp_path: Path) -> None:
    with locked(tmp_path / "run"):
        check_seen(tmp_path / "run")
    with pytest.raises(InputError, match=rf"elsewhere: cannot be seen from node {socket.gethostname()}"):
        check_seen(tmp_path / "elsewhere")


def test_a_relative_run_folder_is_refused_on_a_cluster(
    study: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "192.0.2.1:6379")
    code, err = call("run", study, "--output", "somewhere")
    assert code == 2
    assert "--output somewhere: is a relative path" in err


def test_an_adapter_is_what_its_card_says_wherever_it_is_read(finished: Path, tmp_path: Path) -> None:
    skeleton, name = Base.at(PIPELINE).skeleton, "star-cup-lora"
    shutil.copytree(finished / "adapters" / name, tmp_path / name)
    load_adapter(tmp_path / name, skeleton)
    card = json.loads((tmp_path / name / "adapter.json").read_text())
    (tmp_path / name / "adapter.json").write_text(json.dumps(card | {"sha256": "0" * 64}))
    with pytest.raises(InputError, match=r"is not what adapter\.json describes"):
        load_adapter(tmp_path / name, skeleton)
    with pytest.raises(InputError, match="cannot be read on node"):
        load_adapter(tmp_path / "nowhere", skeleton)


def test_what_travels_to_a_worker_is_small() -> None:
    """Names and paths: no weights, no images."""
    adapters = {f"subject-{k}-lora": Path("/nfs/runs/paper/adapters") / f"subject-{k}-lora" for k in range(45)}
    generator = GeneratorSpec("org/model@0123", adapters, SamplerSettings(), 20, "float16", False, False, 1, "cuda")
    scorer = ScorerSpec("ViT-L-14/openai", "alex", Path("/nfs/runs/paper"), "0" * 64, False, 1, "cuda")
    assert len(cloudpickle.dumps(generator)) < 20_000
    assert len(cloudpickle.dumps(scorer)) < 2_000
    assert ray.cloudpickle.loads(cloudpickle.dumps(NOWHERE)).args == NOWHERE.args
