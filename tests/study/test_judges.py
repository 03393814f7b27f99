"""A study's further judges: in alphabetical order, in the digest with their versions; without any, nowhere."""

from __future__ import annotations

from pathlib import Path

import yaml

from raymap.driver.record import write_study
from raymap.plan.blocks import make_plan
from raymap.store.folder import RunFolder
from raymap.study.adapter import AdapterInfo
from raymap.study.file import load_study
from tests.small_study import small_study

ADAPTER = AdapterInfo("a", "lora", "s", "object", "0" * 64)


def test_without_judges_neither_the_written_study_nor_the_digest_knows_of_them(tmp_path: Path) -> None:
    path = small_study(tmp_path)
    study, emptied = load_study(path), load_study(path, ("judges=[]",))
    assert study == emptied
    assert "judges" not in study.model_dump(mode="json")
    write_study(study, RunFolder(tmp_path))
    assert "judges" not in yaml.safe_load((tmp_path / "study.yaml").read_text())
    plan = make_plan(study, (ADAPTER,), {"base": "b"})
    assert plan == make_plan(emptied, (ADAPTER,), {"base": "b"}, {})


def test_the_digest_holds_judges_and_versions_and_their_order_does_not_matter(tmp_path: Path) -> None:
    path = small_study(tmp_path)
    one, other = (
        load_study(path, (f"judges={names}",)) for names in ("[palette, blurred-rms]", "[blurred-rms, palette]")
    )
    assert one == other
    assert one.judges == ("blurred-rms", "palette")
    assert yaml.safe_load(yaml.safe_dump(one.model_dump(mode="json")))["judges"] == ["blurred-rms", "palette"]
    versions: tuple[dict[str, str], ...] = (
        {},
        {"palette": "1"},
        {"palette": "2"},
        {"blurred-rms": "1"},
        {"blurred-rms": "1", "palette": "1"},
    )
    assert len({make_plan(one, (ADAPTER,), {"base": "b"}, version).digest for version in versions}) == len(versions)
