"""Files for clusters, as far as they can be checked without one: Ray's own validator, structure, what they refer to."""

from __future__ import annotations

import json
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from raymap.cluster.metrics import STAGES
from raymap.study.file import load_study
from raymap.study.suite import CATEGORIES

ROOT = Path(__file__).parents[2]
CLUSTERS = ("cluster.yaml", "deploy/gcp.yaml", "deploy/on-premises.yaml")
IMAGE = re.compile(r"image: (\S+)")


def read(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text())


@pytest.mark.parametrize("name", CLUSTERS)
def test_cluster_configurations_pass_rays_validator(name: str) -> None:
    validate_config(prepare_config(read(name)))


@pytest.mark.parametrize("name", CLUSTERS)
def test_a_misspelt_key_would_not_pass(name: str) -> None:
    with pytest.raises(Exception, match="idle_timeout_minute"):
        validate_config(prepare_config(read(name) | {"idle_timeout_minute": 3}))


@pytest.mark.parametrize("name", ["cluster.yaml", "deploy/gcp.yaml"])
def test_clouds_start_without_workers_and_the_head_draws_nothing(name: str) -> None:
    config = prepare_config(read(name))
    head, gpu = (config["available_node_types"][kind] for kind in ("head", "gpu"))
    assert head["resources"] == {"CPU": 0}
    assert (gpu["min_workers"], gpu["max_workers"]) == (0, config["max_workers"])
    assert gpu["resources"]["GPU"] == 1
    assert "spot" in str(gpu["node_config"]) or "preemptible" in str(gpu["node_config"])


@pytest.mark.parametrize("name", CLUSTERS)
def test_clusters_ask_for_the_token_and_show_their_dashboard_to_nobody(name: str) -> None:
    config = prepare_config(read(name))
    starts = [c for key in ("head", "worker") for c in config[f"{key}_start_ray_commands"] if "ray start" in c]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in command for command in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert config["file_mounts"] == {"~/.ray/auth_token": "~/.ray/auth_token"}
    rules = config["provider"].get("security_group", {}).get("IpPermissions", ())
    assert all(rule["ToPort"] == 22 and {"CidrIp": "0.0.0.0/0"} not in rule["IpRanges"] for rule in rules)


POD = {"containers", "volumes", "nodeSelector", "tolerations", "terminationGracePeriodSeconds"}
CONTAINER = {"name", "image", "env", "resources", "volumeMounts"}


def test_the_rayjob_has_the_structure_of_kuberays_schema() -> None:
    """Names of fields as in the CRD ray.io/v1; a misspelt one would be dropped in silence by the API server."""
    job = read("deploy/rayjob.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]
    assert set(spec) == {"entrypoint", "backoffLimit", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished",
                         "rayClusterSpec"}  # fmt: skip
    cluster = spec["rayClusterSpec"]
    assert set(cluster) == {"rayVersion", "authOptions", "enableInTreeAutoscaling", "autoscalerOptions",
                            "headGroupSpec", "workerGroupSpecs"}  # fmt: skip
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["enableInTreeAutoscaling"] is True
    assert set(cluster["autoscalerOptions"]) == {"idleTimeoutSeconds", "upscalingMode"}
    assert cluster["rayVersion"] == version("ray")
    (workers,) = cluster["workerGroupSpecs"]
    assert set(workers) == {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}
    assert workers["replicas"] == workers["minReplicas"] == 0 < workers["maxReplicas"]
    for group in (cluster["headGroupSpec"], workers):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = group["template"]["spec"]
        assert pod.keys() <= POD
        (container,) = pod["containers"]
        assert container.keys() == CONTAINER
        assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
        assert "/dev/shm" in {m["mountPath"] for m in container["volumeMounts"]}
    gpu = workers["template"]["spec"]["containers"][0]["resources"]
    assert gpu["requests"]["nvidia.com/gpu"] == gpu["limits"]["nvidia.com/gpu"] == "1"


def test_the_rayjobs_entry_point_names_a_study_that_is_there() -> None:
    entry = re.match(r"raymap run /jobs/(\S+) --output s3://", read("deploy/rayjob.yaml")["spec"]["entrypoint"])
    assert entry is not None
    load_study(ROOT / "jobs" / entry[1])


def test_no_secret_stands_in_a_file_for_clusters() -> None:
    """Tokens come from mounted files and secrets; where one is named, it has no value."""
    for path in [ROOT / "cluster.yaml", *(ROOT / "deploy").iterdir(), *(ROOT / "jobs").glob("*.yaml")]:
        text = path.read_text()
        assert not re.search(r"\bhf_[A-Za-z0-9]{8,}|AKIA[A-Z0-9]{8,}|(TOKEN|SECRET\w*|KEY)=\S", text), path.name
    head = read("deploy/rayjob.yaml")["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    hub = next(entry for entry in head["env"] if entry["name"] == "HF_TOKEN")
    assert hub["valueFrom"].keys() == {"secretKeyRef"}


def test_one_image_is_used_everywhere_and_holds_the_locked_environment() -> None:
    lines = (ROOT / "deploy" / "Containerfile").read_text().splitlines()
    used = {m[1] for name in (*CLUSTERS, "deploy/rayjob.yaml") for m in IMAGE.finditer((ROOT / name).read_text())}
    assert used == {re.search(r"-t (\S+)", lines[1])[1]}  # type: ignore[index]
    steps = [line.split(" ", 1) for line in lines if line and not line.startswith("#")]
    assert [step for step, _ in steps] == ["FROM", "WORKDIR", "COPY", "RUN", "COPY", "COPY", "RUN", "WORKDIR", "ENV"]
    assert steps[0][1] == f"rayproject/ray:{version('ray')}-py311-gpu"
    for step, rest in steps:
        if step == "COPY":
            *sources, _ = rest.removeprefix("--chown=ray:users ").split()
            assert all((ROOT / source).exists() for source in sources)
        if step == "RUN" and "pip install" in rest:
            assert "--require-hashes -r requirements.lock" in rest or "--no-deps" in rest
    assert re.search(rf"^ray==?{version('ray')}|^ray\[default\]=={version('ray')}", lock(), re.MULTILINE)


def lock() -> str:
    return (ROOT / "requirements.lock").read_text()


@pytest.mark.parametrize("name", ["paper", "audit", "throughput"])
def test_jobs_are_studies(name: str) -> None:
    study = load_study(ROOT / "jobs" / f"{name}.yaml")
    assert study.name == name
    assert study.resources.gpus_per_worker == 1


def test_the_papers_job_has_the_papers_numbers() -> None:
    study = load_study(ROOT / "jobs" / "paper.yaml")
    assert [s.category for s in study.subjects] == ["face"] * 5 + ["object"] * 5 + ["style"] * 5
    assert set(study.methods) == {"textual_inversion", "lora", "custom_diffusion"}
    assert len(study.seeds) == 10
    counts = [sum(p.category == category for p in study.prompts) for category in CATEGORIES]
    assert counts == [33, 33, 34, 34, 33, 33]
    published = yaml.safe_load((ROOT / "raymap" / "analysis" / "paper" / "paper.yaml").read_text())["table2"]
    texts = {p.text for p in study.prompts}
    assert {row["prompt"] for key in ("most_fragile", "most_robust") for row in published[key]} <= texts


def test_the_grafana_dashboard_asks_for_metrics_that_are_exported() -> None:
    dashboard = json.loads((ROOT / "deploy" / "grafana.json").read_text())
    source = (ROOT / "raymap" / "cluster" / "metrics.py").read_text()
    named = set(re.findall(r'(?:Counter|Gauge)\("(raymap_\w+)"', source))
    named |= {f"raymap_{stage}econds" for stage in STAGES}
    asked = {
        name
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"ray_(raymap_\w+)", target["expr"])
    }
    assert {name.removesuffix("_total") for name in asked} == named
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
