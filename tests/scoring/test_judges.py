"""The registry of judges, what a judge must declare, and the built-in one beside its formula."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raymap.embedded.train.data import motifs
from raymap.errors import InputError
from raymap.scoring.blurred import SIGMA, BlurredRms
from raymap.scoring.judges import JUDGES, PairJudge, PromptJudge, judge_infos, load_judge
from raymap.study.judge import JudgeInfo
from tests.commands import python
from tests.judging import install, install_example

WORKING = """
class Pair:
    version, unit = "1", "steps"
    def __init__(self, device): self.device = device
    def distances(self, base, adapted): return [0.0] * len(base)

class Prompt:
    version, unit, higher_is_better = "sha256:0", "points", False
    def __init__(self, device): raise OSError("weights are not there")
    def scores(self, prompts, pixels): return [0.0] * len(pixels)

class Both(Pair):
    def scores(self, prompts, pixels): return [0.0] * len(pixels)

class Neither: version, unit = "1", "steps"
class Unversioned:
    unit = "steps"
    def distances(self, base, adapted): return []

class Undirected:
    version, unit = "1", "points"
    def scores(self, prompts, pixels): return []
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    entries = {
        "pair": "my_judges:Pair", "prompt": "my_judges:Prompt", "both": "my_judges:Both",
        "neither": "my_judges:Neither", "unversioned": "my_judges:Unversioned", "undirected": "my_judges:Undirected",
        "absent": "my_judges:Nobody", "elsewhere": "no_such_module:Judge", "blurred-rms": "my_judges:Pair",
    }  # fmt: skip
    monkeypatch.syspath_prepend(str(install(tmp_path / "packages", WORKING, entries)))
    monkeypatch.delitem(sys.modules, "my_judges", raising=False)
    return tmp_path


def test_judges_of_other_packages_are_found_by_their_entry_points(installed: Path) -> None:
    assert judge_infos(["prompt", "pair"]) == (
        JudgeInfo("prompt", "prompt", "sha256:0", "points", False),
        JudgeInfo("pair", "pair", "1", "steps", False),
    )
    assert load_judge("pair", "cuda").device == "cuda"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nobody", "no judge that is installed here; use one of absent, blurred-rms, both"),
        ("both", "has not exactly one of the methods"),
        ("neither", "has not exactly one of the methods"),
        ("unversioned", "declares no `version`"),
        ("undirected", "declares no `higher_is_better`"),
        ("absent", "cannot be imported from my_judges:Nobody"),
        ("elsewhere", "cannot be imported from no_such_module:Judge"),
        ("blurred-rms", "is offered by raymap.scoring.blurred:BlurredRms and by my_judges:Pair"),
    ],
)
def test_a_judge_that_cannot_be_used_is_refused_by_name(installed: Path, name: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as refused:
        judge_infos([name])
    assert str(refused.value).startswith(f"judges: {name}: ")


def test_a_judge_that_does_not_load_says_why(installed: Path) -> None:
    with pytest.raises(InputError, match=r"judges: prompt: cannot be loaded \(OSError: weights are not there"):
        load_judge("prompt", "cpu")


def test_every_built_in_judge_declares_what_it_must_and_loads_no_torch() -> None:
    assert [info.name for info in judge_infos(JUDGES)] == list(JUDGES)
    code = (
        "import sys; from raymap.scoring.judges import JUDGES, judge_infos, load_judge\n"
        "judge_infos(JUDGES)\n"
        "assert not {'torch', 'ray'} & sys.modules.keys(), sorted(sys.modules)"
    )
    python(code)


def test_the_guides_judges_keep_the_protocols(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(install_example(tmp_path / "packages")))
    monkeypatch.delitem(sys.modules, "my_judges", raising=False)
    pair: PairJudge = load_judge("palette", "cpu")  # type: ignore[assignment]
    prompt: PromptJudge = load_judge("named-colour", "cpu")  # type: ignore[assignment]
    images = np.zeros((2, 8, 8, 3), np.uint8)
    images[0, :, :6, 0] = 255
    assert pair.distances(images, images[::-1]).tolist() == [0.75, 0.75]
    assert prompt.scores(["a red cup", "a cup"], images).tolist() == [1.0, 0.0]


def expected(x: np.ndarray, y: np.ndarray) -> float:
    """The formula, by a dense matrix: each row of `blur` holds the weights of one pixel, mirrored at the edges."""
    side = len(x)
    blur = np.zeros((side, side))
    for row in range(side):
        for step in range(-12, 13):
            at = row + step
            at = -at - 1 if at < 0 else 2 * side - at - 1 if at >= side else at
            blur[row, at] += np.exp(-(step**2) / (2 * SIGMA**2))
    blur /= blur.sum(1, keepdims=True)
    difference = np.einsum("ih,jw,hwc->ijc", blur, blur, x.astype(float) - y.astype(float))
    return float(np.sqrt((difference**2).mean()) / 255)


def test_the_blurred_difference_is_its_formula() -> None:
    rng = np.random.default_rng(0)
    images = np.stack([p.render(rng) for p in motifs(None, 6, seed=5, held_out=True)])
    found = BlurredRms("cpu").distances(images[:3], images[3:])
    assert found == pytest.approx([expected(x, y) for x, y in zip(images[:3], images[3:], strict=True)], rel=1e-9)
    assert BlurredRms("cpu").distances(images, images).tolist() == [0.0] * 6
    extremes = np.zeros((2, 64, 64, 3), np.uint8)
    extremes[1] = 255
    assert BlurredRms("cpu").distances(extremes[:1], extremes[1:]) == pytest.approx([1.0])


def test_the_blurred_difference_is_the_same_at_every_size() -> None:
    """An image enlarged by whole factors has the distances of the image itself; fine grain counts for little."""
    rng = np.random.default_rng(1)
    small = np.stack([p.render(rng) for p in motifs(None, 4, seed=5, held_out=True)])
    large = small.repeat(3, axis=1).repeat(3, axis=2)
    judge = BlurredRms("cpu")
    assert judge.distances(large[:2], large[2:]) == pytest.approx(judge.distances(small[:2], small[2:]), abs=1e-12)
    grain = np.clip(small.astype(int) + rng.integers(-20, 21, small.shape), 0, 255).astype(np.uint8)
    flat = small.copy()
    flat[:, 16:48, 16:48] = small.mean(axis=(1, 2), keepdims=True).astype(np.uint8)
    assert judge.distances(small, grain).max() < 0.01 < judge.distances(small, flat).min()
    wide = np.asarray(Image.fromarray(small[0]).resize((300, 128)))[None]
    assert judge.distances(wide, wide) == [0.0]
