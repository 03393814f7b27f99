"""A command loads what it needs and no more: most of the time that a small one takes is that of importing packages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import save_file

from raymap.base.model import Base
from raymap.embedded.model import PIPELINE
from tests.adapters.layouts import VECTORS, written

REPORT = """
import json, sys
from raymap.cli import main
sys.argv = ["raymap", *sys.argv[1:]]
try:
    main()
except SystemExit as ended:
    print(json.dumps([ended.code or 0, sorted({name.partition(".")[0] for name in sys.modules})]), file=sys.stderr)
"""
ALWAYS = {"accelerate", "diffusers", "open_clip", "peft", "ray", "scipy", "torchvision", "transformers"}
"""Packages that no command loads which only looks at files."""
HEAVY = ALWAYS | {"huggingface_hub", "pandas", "polars", "pyarrow"}
COMMANDS: dict[str, tuple[list[str], set[str]]] = {
    "help": (["--help"], HEAVY | {"PIL", "numpy", "torch"}),
    "check by headers": (["check", "--headers", "lora.safetensors"], HEAVY | {"PIL", "torch"}),
    "check of a LoRA": (["check", "lora.safetensors"], HEAVY | {"PIL"}),
    "check of a token": (["check", "mycup.safetensors"], HEAVY | {"PIL"}),
    "dry run of an audit": (["audit", "--dry-run", "--adapter", "lora.safetensors"], HEAVY),
}
"""Commands, each with the packages that it does without."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("files")
    written("kohya", Base.at(PIPELINE).skeleton, made / "lora.safetensors")
    save_file({"emb_params": VECTORS}, made / "mycup.safetensors")
    return made


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_loads_no_package_that_it_does_not_need(name: str, folder: Path) -> None:
    arguments, unwanted = COMMANDS[name]
    own = {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", REPORT, *arguments]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=os.environ | own, check=True)
    code, loaded = json.loads(ended.stderr.splitlines()[-1])
    assert code == 0, ended.stdout + ended.stderr
    assert not unwanted & set(loaded)
