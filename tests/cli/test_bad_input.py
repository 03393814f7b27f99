"""Bad input ends with exit code 2 and one line that names file and key, before Ray starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raymap.personalize.references.read import MAX_PIXELS
from raymap.store.lock import locked
from tests.refusals import Call, refused
from tests.small_study import small_study


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"sede": 3}, ("sede", "is not a key")),
        ({"sampler": {"step": 3}}, ("sampler.step", "is not a key")),
        ({"seeds": [0, 1.5]}, ("seeds.1", "1.5")),
        ({"seeds": [0, "one"]}, ("seeds.1", "one")),
        ({"seeds": [4, 4]}, ("seeds", "4", "twice")),
        ({"seeds": 1}, ("seeds", "noise floor")),
        ({"seeds": [0, -1]}, ("seeds.1", "-1")),
        ({"prompts": {"people": ["a man", " "]}}, ("prompt 2", "empty")),
        ({"prompts": {"people": ["a man"], "animals": ["a man"]}}, ("prompt 2", "a man", "twice")),
        ({"prompts": {"persons": ["a man"]}}, ("persons", "people")),
        ({"prompts": []}, ("prompts", "empty")),
        ({"prompts": None}, ("suite",)),
        ({"prompts": None, "suite": "nothing-like-it"}, ("suite", "nothing-like-it", "embedded-quick")),
        ({"subjects": None}, ("subjects",)),
        ({"base": "./nowhere", "clip": "embedded", "lpips": "embedded"}, ("base", "nowhere")),
        ({"base": "stable-diffusion-v1-5/stable-diffusion-v1-5"}, ("clip, lpips", "embedded", "ViT-L-14/openai")),
        ({"clip": "ViT-L-14/nobody"}, ("clip", "ViT-L-14/nobody")),
        ({"lpips": "mobile"}, ("lpips", "mobile")),
        ({"judges": ["nobody"]}, ("judges", "nobody", "blurred-rms")),
        ({"judges": ["blurred-rms", "blurred-rms"]}, ("judges", "blurred-rms", "twice")),
        ({"judges": "blurred-rms"}, ("judges", "blurred-rms")),
        ({"judges": ["../x"]}, ("judges.0", "../x")),
        ({"batch_size": 0}, ("batch_size", "0")),
        ({"batch_size": 1}, ("batch_size", "noise floor")),
        ({"subjects": 3}, ("subjects", "3")),
        ({"methods": {"lora": {"learning_rate": "fast"}}}, ("methods.lora.learning_rate", "fast")),
    ],
)
def test_a_wrong_study_is_refused(tmp_path: Path, call: Call, changes: dict[str, Any], names: tuple[str, ...]) -> None:
    path = small_study(tmp_path, **changes)
    refused(call, "run", path, "--output", tmp_path / "run", names=names)
    assert not (tmp_path / "run").exists()


def test_a_study_that_is_no_yaml_is_refused(tmp_path: Path, call: Call) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("name: [unclosed")
    refused(call, "run", path, names=("broken.yaml", "not YAML"))
    refused(call, "run", tmp_path / "absent.yaml", names=("absent.yaml", "cannot be read"))


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("missing.png", None, "does not exist"),
        ("empty.png", b"", "not a readable image"),
        ("text.jpg", b"this is not an image", "not a readable image"),
    ],
)
def test_a_bad_reference_image_is_refused(
    tmp_path: Path, call: Call, name: str, content: bytes | None, problem: str
) -> None:
    image = tmp_path / name
    if content is not None:
        image.write_bytes(content)
    subject = {"name": "x", "category": "object", "class_word": "cup", "references": [str(image)]}
    refused(call, "run", small_study(tmp_path, subjects=[subject]), names=(name, problem))


def test_a_truncated_reference_image_is_refused(tmp_path: Path, call: Call) -> None:
    path = small_study(tmp_path)
    whole = (tmp_path / "references" / "01.png").read_bytes()
    (tmp_path / "references" / "01.png").write_bytes(whole[: len(whole) // 2])
    refused(call, "run", path, names=("01.png", "not a readable image"))


def test_an_enormous_reference_image_is_refused_unread(tmp_path: Path, call: Call) -> None:
    side = int(MAX_PIXELS**0.5) + 2000
    header = f"P5 {side} {side} 255\n".encode()  # a PGM of which only the header is there
    (tmp_path / "huge.pgm").write_bytes(header)
    subject = {"name": "x", "category": "object", "class_word": "cup", "references": [str(tmp_path / "huge.pgm")]}
    refused(call, "run", small_study(tmp_path, subjects=[subject]), names=("huge.pgm", str(side)))


def test_a_folder_in_use_is_refused(tmp_path: Path, call: Call, study: Path) -> None:
    with locked(tmp_path / "run"):
        refused(call, "run", study, "--output", tmp_path / "run", names=("in use",))


def test_overrides_and_limit_are_checked(call: Call, study: Path) -> None:
    refused(call, "run", study, "--set", "sampler", names=("--set sampler",))
    refused(call, "run", study, "--set", "seeds=[1", names=("--set seeds=[1", "is not YAML"))
    refused(call, "run", study, "--set", "sampler.stepz=3", names=("sampler.stepz",))
    refused(call, "run", study, "--limit", "0", names=("--limit",))
    refused(call, "run", study, "--output", "nowhere://bucket/run", names=("nowhere:",))


def test_stats_and_report_need_a_run_folder(tmp_path: Path, call: Call) -> None:
    refused(call, "stats", tmp_path, names=("scores",))
    refused(call, "report", tmp_path / "nowhere", names=("scores",))
