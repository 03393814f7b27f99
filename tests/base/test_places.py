"""Where a base comes from on a node: the package, a folder, a URL that is fetched once, a hub id with its commit."""

from __future__ import annotations

import shutil
from pathlib import Path

import fsspec
import pytest
from diffusers import StableDiffusionPipeline

from raymap.base import folder as bases
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
    folder = bases.resolve("memory://models/small")
    assert folder.parent == cache
    assert bases.digest(folder) == bases.digest(PIPELINE)
    remote.rm("/models", recursive=True)
    assert bases.resolve("memory://models/small") == folder, "what is there is not asked for again"
    assert bases.pinned("memory://models/small") == "memory://models/small"


def test_a_url_without_a_model_is_refused_and_leaves_nothing_behind(cache: Path) -> None:
    for url in ("memory://nothing/there", "nofs://models/small"):
        with pytest.raises(InputError, match=url):
            bases.resolve(url)
    assert not [path for path in cache.iterdir() if path.is_dir()] if cache.exists() else True


def test_a_hub_id_is_pinned_to_the_commit_that_this_node_has(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The hub's cache has a folder a commit; no hub is reached here, so the download itself is stood in for."""
    asked: list[tuple[str, str | None]] = []

    def download(name: str, revision: str | None = None, **_: object) -> str:
        asked.append((name, revision))
        return str(tmp_path / "hub" / "models--someone--model" / "snapshots" / "0123abcd")

    monkeypatch.setattr(StableDiffusionPipeline, "download", download)
    assert bases.pinned("someone/model") == "someone/model@0123abcd"
    bases.resolve("someone/model@0123abcd")
    assert asked == [("someone/model", None), ("someone/model", "0123abcd")]


def test_folders_and_the_embedded_base_keep_their_names(tmp_path: Path) -> None:
    shutil.copytree(PIPELINE, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    assert bases.pinned(str(tmp_path / "model")) == str(tmp_path / "model")
    assert bases.pinned("embedded") == "embedded"
