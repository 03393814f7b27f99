"""Adapters of the model hub and of URLs, from a server of this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from safetensors.torch import save

from raymap.adapters.fetched import local_adapter
from raymap.base.model import Base
from raymap.embedded.model import PIPELINE
from raymap.errors import InputError
from raymap.study.file import load_study
from raymap.study.source import HubFile, file_stem, hub_file, without_secrets
from tests.adapters.layouts import VECTORS, written
from tests.small_study import small_study

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PAGE = b"<!DOCTYPE html><title>Log in</title>"


class Server(ThreadingHTTPServer):
    """Answers as the model hub does, and as a host of files; notes what is asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.ids: dict[str, dict[str, bytes]] = {}
        self.files: dict[str, tuple[bytes, dict[str, str]]] = {}
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def found(self, path: str) -> tuple[bytes, dict[str, str]] | None:
        for hub_id, files in self.ids.items():
            if path.startswith(f"/api/models/{hub_id}/tree/"):
                tree = [{"type": "file", "path": name, "size": len(own), "oid": name} for name, own in files.items()]
                return json.dumps(tree).encode(), {}
            if path.startswith(f"/api/models/{hub_id}"):
                siblings = [{"rfilename": name} for name in files]
                return json.dumps({"id": hub_id, "sha": COMMIT, "siblings": siblings}).encode(), {}
            start = f"/{hub_id}/resolve/"
            name = path.removeprefix(start).partition("/")[2]
            if path.startswith(start) and name in files:
                return files[name], {"ETag": f'"{abs(hash(files[name])):x}"', "X-Repo-Commit": COMMIT}
        return self.files.get(path)


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET(False)

    def do_GET(self, whole: bool = True) -> None:
        server: Any = self.server
        server.asked.append(self.path)
        found = server.found(urlsplit(self.path).path)
        body, headers = found or (b"{}", {"X-Error-Code": "RepoNotFound" if "/api/" in self.path else "EntryNotFound"})
        self.send_response(200 if found else 404)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body if whole else b"")

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with Server() as own:
        thread = threading.Thread(target=own.serve_forever)
        thread.start()
        yield own
        own.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return written("kohya", Base.at(PIPELINE).skeleton, tmp_path_factory.mktemp("lora") / "a.safetensors").read_bytes()


def asked(server: Server, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own: the hub's client reads once where the hub is."""
    hub = {"HF_ENDPOINT": server.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(folder / "hub"), "HF_HUB_DISABLE_XET": "1"}
    own = hub | {"PYTHONPATH": str(Path(__file__).parents[2]), "HF_TOKEN": "", "NO_PROXY": "*"}
    command = [sys.executable, "-m", "raymap", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=os.environ | own, check=False)


def test_a_hub_id_is_fetched_with_what_belongs_to_the_adapter(server: Server, tmp_path: Path, lora: bytes) -> None:
    server.ids["org/cat"] = {
        "pytorch_lora_weights.safetensors": lora,
        "cat_emb.safetensors": save({"clip_l": VECTORS}),
        "model-000500.safetensors": lora,
        "README.md": b"# A cat",
    }
    server.ids["org/many"] = {"first.safetensors": lora, "second.safetensors": lora, "preview.png": b"\x89PNG"}
    ended = asked(server, tmp_path, "check", "org/cat", "org/many:second.safetensors", "--json")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    cat, second = json.loads(ended.stdout)["adapters"]
    assert cat["triggers"] == ["cat_emb"]
    assert cat["weights"] == second["weights"] == 4
    assert not any("model-000500" in path or "README" in path for path in server.asked)
    several = asked(server, tmp_path, "check", "org/many")
    assert several.returncode == 2
    assert "holds 2 adapter files (first.safetensors, second.safetensors)" in several.stderr
    assert "choose one, as org/many:first.safetensors" in several.stderr
    absent = asked(server, tmp_path, "check", "org/nothing")
    assert absent.returncode == 2
    assert "org/nothing: is no path here, and the model hub does not give it" in absent.stderr
    assert "Traceback" not in absent.stderr


def test_an_audit_takes_a_hub_id_and_names_the_adapter_by_it(server: Server, tmp_path: Path, lora: bytes) -> None:
    server.ids["org/Sleepy-Cat"] = {"anything.safetensors": lora}
    ended = asked(server, tmp_path, "audit", "--dry-run", "--adapter", "org/Sleepy-Cat")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "audit-sleepy-cat: " in ended.stdout


def test_a_url_is_fetched_once_and_keeps_its_servers_name(server: Server) -> None:
    own = {"Content-Disposition": 'attachment; filename="EasyCat.safetensors"'}
    server.files["/api/download/models/12345"] = save({"emb_params": VECTORS}), own
    url = f"{server.url}/api/download/models/12345?token=secret"
    path = local_adapter(url)
    assert path.name == "EasyCat.safetensors"
    assert local_adapter(url) == path
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("path", "words"), [("/page.safetensors", "is a web page"), ("/gone.safetensors", "cannot be fetched (HTTPError: ")]
)
def test_a_url_that_gives_something_else_is_refused_and_not_kept(server: Server, path: str, words: str) -> None:
    server.files["/page.safetensors"] = PAGE, {}
    for _ in range(2):
        with pytest.raises(InputError) as refused:
            local_adapter(f"{server.url}{path}?token=secret")
        assert words in str(refused.value)
        assert "secret" not in str(refused.value)
    assert len(server.asked) == 2


def test_a_study_names_adapters_by_path_url_and_hub_id(tmp_path: Path) -> None:
    (tmp_path / "loras").mkdir()
    (tmp_path / "loras" / "here").touch()
    names = ["loras/here", "loras/gone", "./a/b", "https://host/x/My_Cat.safetensors?token=t&v=1", "org/name:a/Dog.pt"]
    study = load_study(small_study(tmp_path, subjects=None, adapters=names))
    assert [entry.path for entry in study.adapters] == [
        str(tmp_path / "loras" / "here"), "loras/gone", str(tmp_path / "a" / "b"), names[3], names[4],
    ]  # fmt: skip
    assert [entry.short_name for entry in study.adapters] == ["here", "gone", "b", "my_cat", "dog"]
    kept = yaml.safe_load(yaml.safe_dump(study.model_dump(mode="json")))["adapters"]
    assert kept[3]["path"] == "https://host/x/My_Cat.safetensors?v=1"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("org/name", HubFile("org/name")),
        ("org/name:dir/file.safetensors", HubFile("org/name", None, "dir/file.safetensors")),
        ("org/name@refs/pr/1:file.bin", HubFile("org/name", "refs/pr/1", "file.bin")),
        ("name", None),
        ("loras/gone.safetensors", None),
        ("a/b/c", None),
        ("./a/b", None),
        ("/a/b", None),
        ("https://host/a", None),
    ],
)
def test_what_a_name_means_on_the_hub(name: str, meant: HubFile | None) -> None:
    assert hub_file(name) == meant


def test_urls_are_written_down_without_what_opens_a_door() -> None:
    url = "https://user:pass@host/x.safetensors?type=Model&token=abc&X-Amz-Signature=1"
    assert without_secrets(url) == "https://host/x.safetensors?type=Model"
    assert file_stem(url) == "x"
