"""Where a base comes from on a node: the package, a folder, a URL that is fetched once, a hub id with its commit."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import fsspec
import pytest
from diffusers import StableDiffusionPipeline

from raymap.base.folder import resolve
from raymap.base.model import open_base
from raymap.base.shapes import INDEX
from raymap.embedded.model import PIPELINE
from raymap.errors import InputError


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "raymap"


def test_a_url_is_fetched_once_and_whole(cache: Path, tmp_path: Path) -> None:
    """Another node's digest is this one's: the files are the same."""
    remote = fsspec.filesystem("memory")
    remote.put(f"{PIPELINE}/", "/models/small", recursive=True)
    base = open_base("memory://models/small")
    assert base.folder.parent == cache
    assert base.sha256 == open_base("embedded").sha256
    remote.rm("/models", recursive=True)
    assert resolve("memory://models/small") == base.folder, "what is there is not asked for again"
    assert base.pinned == "memory://models/small"


def test_a_url_without_a_model_is_refused_and_leaves_nothing_behind(cache: Path) -> None:
    for url in ("memory://nothing/there", "nofs://models/small"):
        with pytest.raises(InputError, match=url):
            resolve(url)
    assert not [path for path in cache.iterdir() if path.is_dir()] if cache.exists() else True


def test_a_hub_id_is_pinned_to_the_commit_that_this_node_has(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The hub's cache has a folder per commit; no hub is reached here, so downloads are replaced."""
    asked = hub(monkeypatch, tmp_path, "StableDiffusionPipeline")
    assert open_base("someone/model").pinned == "someone/model@0123abcd"
    resolve("someone/model@0123abcd")
    assert asked == [("someone/model", None), ("someone/model", "0123abcd")]


def test_a_hub_id_that_draws_no_image_from_a_prompt_alone_is_refused_before_its_weights_are_fetched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = hub(monkeypatch, tmp_path, "FluxImg2ImgPipeline")
    with pytest.raises(InputError, match=r"^base: someone/model: its pipeline is a FluxImg2ImgPipeline, .*StableDiff"):
        open_base("someone/model")
    assert not asked


def hub(monkeypatch: pytest.MonkeyPatch, folder: Path, kind: str) -> list[tuple[str, str | None]]:
    """Replace the hub by one whose only base has a pipeline of a kind; return what will be downloaded."""
    asked: list[tuple[str, str | None]] = []
    snapshot = folder / "hub" / "models--someone--model" / "snapshots" / "0123abcd"
    shutil.copytree(PIPELINE, snapshot, copy_function=os.symlink)
    index = json.loads((PIPELINE / INDEX).read_text())
    (snapshot / INDEX).unlink()
    (snapshot / INDEX).write_text(json.dumps(index | {"_class_name": kind}))

    def download(name: str, revision: str | None = None, **_: object) -> str:
        asked.append((name, revision))
        return str(snapshot)

    monkeypatch.setattr(StableDiffusionPipeline, "download", download)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda _, name, **__: str(snapshot / name))
    return asked


def test_folders_and_the_embedded_base_keep_their_names(tmp_path: Path) -> None:
    shutil.copytree(PIPELINE, tmp_path / "model", copy_function=os.symlink)
    assert open_base(str(tmp_path / "model")).pinned == str(tmp_path / "model")
    assert open_base("embedded").pinned == "embedded"
