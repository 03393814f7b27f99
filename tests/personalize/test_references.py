"""Reference images are fetched whole and checked, or not at all, and their terms reach the adapters' cards."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from raymap.base.pipeline import load
from raymap.cli import main
from raymap.driver.prepare import prepare
from raymap.embedded.model import PIPELINE
from raymap.embedded.world.subjects import STAR_CUP
from raymap.errors import InputError
from raymap.personalize.lessons import lesson_of, trainer_of
from raymap.personalize.orders import orders
from raymap.personalize.references.catalogue import PAPER, Catalogue, read_catalogue
from raymap.personalize.references.read import check_references, read_reference
from raymap.study.file import build_study, load_study
from raymap.study.model import Study

JOB = Path(__file__).parents[2] / "jobs" / "paper.yaml"
HOST = "https://raw.githubusercontent.com"
OBJECTS = ["backpack", "teapot", "sneaker", "vase", "clock"]
FACES = [f"face-{k}" for k in range(1, 6)]
STYLES = ["impressionist", "cubist", "ukiyo-e", "geometric"]

Fetch = Callable[..., int]


def jpeg(seed: int) -> bytes:
    """Return a small image of noise, another one for each seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), np.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "JPEG")
    return data.getvalue()


class Hub(ThreadingHTTPServer):
    """A host of files; notes what is asked for. `broken` answers a path with another status, `short` cuts it off."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.files: dict[str, bytes] = {}
        self.broken: dict[str, int] = {}
        self.short: set[str] = set()
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        hub: Any = self.server
        hub.asked.append(self.path)
        status = hub.broken.get(self.path, 200 if self.path in hub.files else 404)
        body = hub.files[self.path] if status == 200 else b""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:100] if self.path in hub.short else body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def paths(catalogue: Catalogue, name: str) -> list[str]:
    """Return the paths, on the host, of a subject's files."""
    (entry,) = catalogue.chosen([name])
    return [catalogue.sources[file.source].at(file.path).split("/", 3)[3] for file in entry.files]


def mirrored(hub: Hub, path: Path) -> Path:
    """Fill the hub under the built-in catalogue's paths, and write that catalogue with the hub and its images."""
    raw = yaml.safe_load(PAPER.read_text())
    built_in = read_catalogue()
    for source in raw["sources"].values():
        source["url"] = source["url"].replace(HOST, hub.url)
    seed = 0
    for subject in raw["subjects"]:
        if "files" in subject:
            for file, at in zip(subject["files"], paths(built_in, subject["name"]), strict=True):
                seed += 1
                hub.files[f"/{at}"] = jpeg(seed)
                file["sha256"] = hashlib.sha256(hub.files[f"/{at}"]).hexdigest()
    path.write_text(yaml.safe_dump(raw))
    return path


@pytest.fixture
def catalogue(hub: Hub, tmp_path: Path) -> Path:
    return mirrored(hub, tmp_path / "catalogue.yaml")


@pytest.fixture
def fetch(catalogue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fetch:
    """`raymap subjects fetch` as a user gives it, into `references/`; returns the exit code."""
    monkeypatch.setenv("no_proxy", "*")

    def run(*args: str) -> int:
        where = ["--to", str(tmp_path / "references"), "--catalogue", str(catalogue)]
        monkeypatch.setattr("sys.argv", ["raymap", "subjects", "fetch", *args, *where])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0)

    return run


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_fetch_of_all_makes_the_papers_job_ready_once_pop_art_is_there(
    fetch: Fetch, hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fetch("--research-only") == 2
    said = capsys.readouterr().out
    assert "14 of 15 subjects" in said
    assert "not there: pop-art" in said
    assert re.search(r"pop-art: missing: no freely licensed source .* images of your own into .*pop-art", said)
    assert len(hub.asked) == len(set(hub.asked)) == len(hub.files) == 65
    own = tmp_path / "references" / "pop-art"
    own.mkdir()
    for k in (1, 2, 3):
        (own / f"{k}.jpg").write_bytes(jpeg(1000 + k))
    assert fetch("--research-only") == 0
    assert fetch() == 0  # nothing of what would have to be fetched is lacking
    assert len(hub.asked) == 65
    shutil.copy(JOB, tmp_path / "paper.yaml")
    embedded = tuple(f"{key}=embedded" for key in ("base", "clip", "lpips"))
    prepared = prepare(load_study(tmp_path / "paper.yaml", embedded))
    assert prepared.images == 200 * 10 * (1 + 3 * 15 + 3)
    trained_on = {digest for order in prepared.orders for _, digest in order.reference_sha256}
    assert trained_on >= {hashlib.sha256(content).hexdigest() for content in hub.files.values()}


def test_images_are_numbered_in_the_catalogues_order_and_the_card_says_whose_they_are(
    fetch: Fetch, hub: Hub, tmp_path: Path
) -> None:
    assert fetch("cubist") == 0
    folder = tmp_path / "references" / "cubist"
    assert files(tmp_path / "references") == sorted(
        f"cubist/{n}" for n in ("card.json", *(f"{k}.jpg" for k in range(1, 6)))
    )
    for k, path in enumerate(paths(read_catalogue(), "cubist"), 1):
        assert (folder / f"{k}.jpg").read_bytes() == hub.files[f"/{path}"]
    card = json.loads((folder / "card.json").read_text())
    assert card["redistribution"] == "allowed"
    assert card["consent"] == "not needed"
    assert card["files"]["2.jpg"]["credit"] == "Roger de La Fresnaye (1885-1925): Artillery, 1911"
    assert card["files"]["2.jpg"]["source"] == (
        "https://github.com/standardebooks/mack-reynolds_short-fiction at f746e49254599aca04d09aa55c30f7c9b90ff894"
    )


def test_without_research_only_faces_are_left_out_and_their_files_not_asked_for(
    fetch: Fetch, hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fetch() == 2
    said = capsys.readouterr().out
    for name in FACES:
        assert re.search(rf"{name}: left out: redistribution unknown .* consent is not known .* --research-only", said)
    assert {path.name for path in (tmp_path / "references").iterdir()} == {*OBJECTS, *STYLES}
    assert not [path for path in hub.asked if "face-recognition" in path]
    assert "9 of 15 subjects" in said
    assert fetch("face-1") == 2
    assert fetch(*OBJECTS) == 0
    assert fetch("face-1", "--research-only") == 0
    assert json.loads((tmp_path / "references" / "face-1" / "card.json").read_text())["redistribution"] == "unknown"


def test_a_subject_whose_licence_forbids_redistribution_is_left_out(
    fetch: Fetch, catalogue: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    catalogue.write_text(catalogue.read_text().replace("redistribution: allowed", "redistribution: forbidden"))
    assert fetch("vase") == 2
    assert "vase: left out: redistribution forbidden (licence: Unsplash License" in capsys.readouterr().out


def test_a_fetch_that_a_host_breaks_off_goes_on_where_it_was(
    fetch: Fetch, hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    third = "/" + paths(read_catalogue(), "teapot")[2]
    hub.broken[third] = 503
    assert fetch("teapot") == 3
    said = capsys.readouterr().err
    assert f"{hub.url}{third}" in said
    assert "teapot/3.jpg" in said
    assert "the same command continues" in said
    folder = tmp_path / "references" / "teapot"
    assert files(folder) == ["1.jpg", "2.jpg", "card.json"]
    assert list(json.loads((folder / "card.json").read_text())["files"]) == ["1.jpg", "2.jpg"]
    hub.broken.clear()
    hub.asked.clear()
    assert fetch("teapot") == 0
    assert hub.asked == ["/" + path for path in paths(read_catalogue(), "teapot")[2:]]
    assert files(folder) == ["1.jpg", "2.jpg", "3.jpg", "4.jpg", "5.jpg", "card.json"]


def test_an_image_that_ends_too_early_is_not_written(
    fetch: Fetch, hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = "/" + paths(read_catalogue(), "vase")[0]
    hub.short.add(first)
    assert fetch("vase") == 3
    assert f"{hub.url}{first} cannot be fetched" in capsys.readouterr().err
    assert files(tmp_path / "references") == []


def spoil_digest(hub: Hub, path: str) -> str:
    hub.files[path] = jpeg(5000)
    return "but the catalogue pins"


def spoil_status(hub: Hub, path: str) -> str:
    del hub.files[path]
    return "is not available (404"


@pytest.mark.parametrize("spoil", [spoil_digest, spoil_status])
def test_a_file_that_is_gone_or_another_fails_its_subject_alone(
    spoil: Callable[[Hub, str], str], fetch: Fetch, hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    second = "/" + paths(read_catalogue(), "vase")[1]
    problem = spoil(hub, second)
    assert fetch("vase", "clock") == 2
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("vase: failed")]
    assert "vase/2.jpg" in line
    assert f"{hub.url}{second}" in line
    assert problem in line
    assert files(tmp_path / "references" / "vase") == ["1.jpg", "card.json"]
    assert files(tmp_path / "references" / "clock") == ["1.jpg", "2.jpg", "3.jpg", "4.jpg", "5.jpg", "card.json"]


def test_a_page_in_place_of_an_image_is_not_written(
    fetch: Fetch, hub: Hub, catalogue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = yaml.safe_load(catalogue.read_text())
    for subject in raw["subjects"]:
        for file in subject.get("files", ()):
            del file["sha256"]
    catalogue.write_text(yaml.safe_dump(raw))
    second = "/" + paths(read_catalogue(), "vase")[1]
    hub.files[second] = b"<html>sign in</html>"
    assert fetch("vase") == 2
    assert re.search(rf"vase/2\.jpg: {hub.url}{second} is not an image", capsys.readouterr().out)
    assert files(tmp_path / "references") == ["vase/1.jpg", "vase/card.json"]


def test_without_a_network_the_command_says_so_and_can_be_given_again(
    fetch: Fetch, hub: Hub, catalogue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        catalogue.write_text(catalogue.read_text().replace(hub.url, dead))
        assert fetch("backpack") == 3
    said = capsys.readouterr().err
    assert re.search(rf"backpack/1\.jpg: {dead}/google/dreambooth/.*/00\.jpg cannot be fetched \(.*refused\)", said)
    assert len(said.strip().splitlines()) == 1
    assert files(tmp_path / "references") == []


def test_an_image_of_the_users_own_is_not_overwritten(
    fetch: Fetch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "references" / "clock" / "3.jpg"
    own.parent.mkdir(parents=True)
    own.write_bytes(jpeg(7000))
    assert fetch("clock") == 2
    assert "clock/3.jpg: is not the image that the catalogue pins; move it elsewhere" in capsys.readouterr().out
    assert own.read_bytes() == jpeg(7000)
    assert files(own.parent) == ["3.jpg"]


def test_an_unknown_subject_and_a_broken_catalogue_are_bad_input(
    fetch: Fetch, catalogue: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fetch("sundial") == 2
    assert "subject sundial: is not in the catalogue; give one of face-1, " in capsys.readouterr().err
    catalogue.write_text(catalogue.read_text().replace("source: lfw", "source: lwf", 1))
    assert fetch() == 2
    assert "face-1: there is no source 'lwf'" in capsys.readouterr().err
    catalogue.write_text("subjects: [")
    assert fetch() == 2
    assert "cannot be read as YAML" in capsys.readouterr().err
    assert hub.asked == []


def study_of(references: list[Path], folder: Path) -> Study:
    raw = {
        "name": "s",
        "seeds": 2,
        "prompts": {"scenes": ["a city at night"]},
        "methods": {"lora": {"steps": 2, "batch_size": 1, "targets": ["to_v"]}},
        "subjects": [
            {"name": "one", "category": "face", "class_word": "man", "references": [str(path) for path in references]}
        ],
    }
    return build_study(raw, "test", folder)


def test_the_terms_of_references_are_in_the_card_of_an_adapter_trained_on_them(fetch: Fetch, tmp_path: Path) -> None:
    assert fetch("face-1", "--research-only") == 0
    references = [tmp_path / "references" / "face-1" / f"{k}.jpg" for k in (1, 2, 3)]
    study = study_of(references, tmp_path)
    subject = study.subjects[0]
    order, identity = orders(study, "0" * 64, {"one": check_references(subject)})
    torch.set_num_threads(1)
    folder = tmp_path / "adapter"
    images = np.stack([read_reference(path, 64) for path in references])
    train = trainer_of(order.trained_by)
    list(train(load(PIPELINE), (lesson_of(order, images, folder),), order.recipe, tmp_path / "checkpoint.pt"))
    card = order.card(folder, [])
    assert len(card["sha256"]) == 64
    assert card["licence"].startswith("none stated: LFW gathered news photographs")
    assert card["consent"] == "none known"
    assert card["redistribution"] == "unknown"
    assert card["sources"] == [
        "https://github.com/krasserm/face-recognition at 363e4ec0f700e74b2ea7abceba289390d29dd43f"
    ]
    assert card["cite"][0].startswith("Huang et al. 2007, Labeled Faces in the Wild")
    assert identity.subject is None


def trained_on(references: list[Path], folder: Path) -> dict[str, Any]:
    """Return what the card of an adapter trained on references would say of their terms."""
    study = study_of(references, folder)
    order = orders(study, "0" * 64, {"one": check_references(study.subjects[0])})[0]
    adapter = folder / "adapter"
    adapter.mkdir(exist_ok=True)
    (adapter / "pytorch_lora_weights.safetensors").write_bytes(b"")
    return order.card(adapter, [])


def test_references_without_a_card_leave_the_terms_unknown(tmp_path: Path) -> None:
    card = trained_on(STAR_CUP.write_references(tmp_path / "cup", n=2), tmp_path)
    assert [card[key] for key in ("licence", "consent", "redistribution", "sources", "cite")] == [None] * 3 + [[], []]


def test_a_card_of_the_users_own_is_carried_on_and_mixed_folders_keep_every_statement(
    fetch: Fetch, tmp_path: Path
) -> None:
    references = STAR_CUP.write_references(tmp_path / "cup", n=2)
    described = {path.name: {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()} for path in references}
    own = {"licence": "mine", "consent": "the sitter agreed in writing", "files": described}
    (tmp_path / "cup" / "card.json").write_text(json.dumps(own))
    card = trained_on(references, tmp_path)
    assert [card[key] for key in ("licence", "consent", "redistribution")] == [
        "mine", "the sitter agreed in writing", None,
    ]  # fmt: skip
    assert fetch("face-1", "--research-only") == 0
    card = trained_on([*references, tmp_path / "references" / "face-1" / "1.jpg"], tmp_path)
    assert card["consent"] == "the sitter agreed in writing; none known"
    assert card["redistribution"] == "unknown"


def test_an_image_that_the_card_beside_it_does_not_describe_is_bad_input(fetch: Fetch, tmp_path: Path) -> None:
    assert fetch("vase") == 0
    folder = tmp_path / "references" / "vase"
    (folder / "6.jpg").write_bytes(jpeg(8000))
    with pytest.raises(InputError, match=r"6\.jpg: is not listed in .*card\.json; add it there, or move it"):
        trained_on([folder / "6.jpg"], tmp_path)
    (folder / "1.jpg").write_bytes(jpeg(8001))
    with pytest.raises(InputError, match=r"1\.jpg: is not the image that .*card\.json describes"):
        trained_on([folder / "1.jpg"], tmp_path)
    (folder / "card.json").write_text("{}")
    with pytest.raises(InputError, match=r"card\.json: is not a card of references"):
        trained_on([folder / "2.jpg"], tmp_path)
