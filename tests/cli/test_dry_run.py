"""A dry run foretells a study before anything of it was fetched, and names what is not there yet."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import open_clip
import pytest

from raymap.base.folder import OUTLINES, outline_of
from raymap.base.model import Base
from raymap.driver.prepare import prepare
from raymap.errors import InputError
from raymap.study.file import load_study
from raymap.study.suite import read_suite
from tests.commands import Ended
from tests.small_study import small_study

JOB = Path(__file__).parents[2] / "jobs" / "paper.yaml"
SD15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"
JUDGES = {"clip": "embedded", "lpips": "embedded"}


@pytest.fixture
def unfetched(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub's cache that holds nothing, whatever this machine's does."""
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: None)


@pytest.mark.usefixtures("unfetched")
def test_the_papers_study_is_foretold_before_anything_was_fetched(
    tmp_path: Path, command: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    """92,000 images as the paper counts them; hours from published FLOPs (see tests/driver/test_cost.py)."""
    shutil.copy(JOB, tmp_path)
    monkeypatch.chdir(tmp_path)
    ended = command("run", tmp_path / "paper.yaml", "--dry-run", "--set", "resources.accelerator_type=H100")
    assert ended.code == 0, ended.err
    first, *missing, last = ended.out.splitlines()
    assert "200 prompts x 10 seeds x 46 models = 92000 images, 30000 of them proved to be the base's own" in first
    assert "3 identity controls = 6000 more images, 2000 of them proved; 45 adapters to train" in first
    base, references = missing
    assert f"missing, before it can run: base {SD15}: not fetched" in base
    assert "references: 68, of face-1, face-2, " in references
    assert str(tmp_path / "references" / "face-1" / "1.jpg") in references
    found = re.search(
        r"estimate: (\d+) images to draw, ([\d.]+) GiB on disk; .* of memory; ([\d.]+) h of drawing", last
    )
    assert found is not None, last
    assert found[1] == "66000"
    # 2,000 base images and one per cell that is drawn, two bytes per pixel; 19.2 M numbers per Custom Diffusion.
    assert float(found[2]) == pytest.approx((11_600 * 512**2 * 2 + 16 * 19.17e6 * 4) / 2**30, rel=0.1)
    assert float(found[3]) == pytest.approx(66_000 * (100 * 0.8034e12 + 2.48e12) / (0.4 * 989e12) / 3600, rel=0.01)
    assert "on one H100 GPU at 40% of its float16 peak (in training of its float32 peak)" in last
    assert [path.name for path in tmp_path.iterdir()] == ["paper.yaml"]


def test_without_its_inputs_the_papers_study_itself_is_refused(
    tmp_path: Path, call: Callable[..., tuple[int, str]]
) -> None:
    shutil.copy(JOB, tmp_path)
    code, said = call("run", tmp_path / "paper.yaml", "--output", tmp_path / "run")
    assert code == 2, said
    assert not (tmp_path / "run").exists()


def test_what_is_absent_is_named_and_what_is_broken_is_refused_all_the_same(tmp_path: Path) -> None:
    study = load_study(small_study(tmp_path))
    first, second, _ = study.subjects[0].references
    first.unlink()
    with pytest.raises(InputError, match=re.escape(f"{first}: does not exist")):
        prepare(study)
    (missing,) = prepare(study, dry=True).missing
    assert missing == f"references: 1, of star-cup; the first is {first} (docs/subjects.md)"
    second.write_bytes(b"this is no image")
    with pytest.raises(InputError, match=re.escape(f"{second}: is not a readable image")):
        prepare(study, dry=True)


@pytest.mark.usefixtures("unfetched")
def test_prompts_and_triggers_are_checked_without_the_base(tmp_path: Path) -> None:
    prompts = {"people": ["a man " * 60], "animals": ["a brown bear"]}
    prepared = prepare(load_study(small_study(tmp_path, base=SD15, **JUDGES, prompts=prompts)), dry=True)
    assert [prompt.text for prompt in prepared.too_long] == [("a man " * 60).strip()]
    methods = {"custom_diffusion": {"trigger": "cup"}}
    with pytest.raises(InputError, match="'cup' is an ordinary token"):
        prepare(load_study(small_study(tmp_path, base=SD15, **JUDGES, methods=methods)), dry=True)


@pytest.mark.usefixtures("unfetched")
def test_a_base_of_unknown_architecture_must_be_there(tmp_path: Path) -> None:
    """Nor can adapters that raymap trained be held against an outline: they name their base's digest."""
    assert outline_of("someone/model") is None
    assert outline_of("embedded") is None
    assert outline_of(f"{SD15}@fp16") == OUTLINES / "sd15"
    with pytest.raises(InputError, match="base: someone/model"):
        prepare(load_study(small_study(tmp_path, base="someone/model", **JUDGES)), dry=True)
    (tmp_path / "cup").mkdir()
    (tmp_path / "cup" / "adapter.json").write_text("{}")
    with pytest.raises(InputError, match=f"base: {SD15}"):
        prepare(load_study(small_study(tmp_path, base=SD15, **JUDGES, subjects=None, adapters=["cup"])), dry=True)


def test_a_base_that_was_fetched_stands_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: "snapshots/0123/model_index.json")
    assert outline_of(SD15) is None


def test_an_outlines_tokenizer_is_clips() -> None:
    """Token ids are those of open_clip's own tokenizer, which has its vocabulary from OpenAI's release."""
    skeleton, peer = Base.at(OUTLINES / "sd15").skeleton, open_clip.get_tokenizer("ViT-L-14")
    texts = [prompt.text for prompt in read_suite("paper", "suite", Path())]
    assert skeleton.tokenizer is not None
    for text, ids in zip(texts, peer(texts).tolist(), strict=True):
        assert skeleton.tokenizer.encode(text).ids == [token for token in ids if token]


def test_identity_controls_are_counted_apart_from_the_studys_images(tmp_path: Path) -> None:
    methods = {"lora": {"steps": 2}, "textual_inversion": {"steps": 2}}
    plain = prepare(load_study(small_study(tmp_path, methods=methods)))
    assert plain.sentence == (
        "small: 7 prompts x 2 seeds x 3 models = 42 images, 14 of them proved to be the base's own and not drawn; "
        "2 identity controls = 28 more images, 14 of them proved; 2 adapters to train"
    )
    without = prepare(load_study(small_study(tmp_path, methods=methods, identity_control=False)))
    assert "control" not in without.sentence
    assert without.images == 42
