"""Embedded bases are whole diffusers folders, whatever they share."""

from __future__ import annotations

from pathlib import Path

import pytest

from raymap.base.complete import check_folder
from raymap.base.families.registry import family_at
from raymap.base.folder import digest, resolve
from raymap.embedded.model import PIPELINE, PIPELINES
from raymap.study.file import load_study

AUTOENCODER = Path("vae", "diffusion_pytorch_model.safetensors")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.mark.parametrize("name", PIPELINES)
def test_an_embedded_base_is_whole_and_stays_where_it_is(name: str) -> None:
    folder = resolve(name)
    check_folder(folder, family_at(folder))
    assert (folder / AUTOENCODER).read_bytes() == (PIPELINE / AUTOENCODER).read_bytes()
    written = (folder / AUTOENCODER).stat().st_mtime_ns
    assert resolve(name) == folder
    assert (folder / AUTOENCODER).stat().st_mtime_ns == written


def test_its_digest_is_the_same_from_every_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digests = set()
    for name in ("one", "other"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
        digests.add(digest(resolve("embedded-dit")))
    assert len(digests) == 1


@pytest.mark.parametrize("name", PIPELINES)
def test_a_study_on_it_takes_the_embedded_judges_and_needs_no_network(name: str, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(
        f"{{name: own, base: {name}, seeds: 2, suite: embedded-quick, adapters: [{{path: cup.safetensors}}]}}"
    )
    study = load_study(tmp_path / "study.yaml")
    assert (study.clip, study.lpips, study.offline) == ("embedded", "embedded", True)
