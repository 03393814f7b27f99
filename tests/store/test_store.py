"""The run folder: what is committed is whole, what is torn does not count."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from raymap.errors import InputError, StorageError
from raymap.plan.blocks import Block, Item, Plan, Unit
from raymap.store.files import read_each, read_if_there, write_atomically
from raymap.store.folder import RunFolder, arrow_bytes, pixel_digest
from raymap.store.lock import check_seen, locked
from raymap.store.schema import JUDGED, JUDGED_MAP, MAP, NOISE, SCORES, stamped
from raymap.study.adapter import BASE, AdapterInfo

ITEMS = tuple(Item("p000", "a cup", "objects", seed) for seed in range(2))
PLAN = Plan((Block(0, ITEMS, ((0, 1),)),), (AdapterInfo("a", "lora", "s", "object", "0"),), 2, "digest")
NO_ROWS = pa.Table.from_pylist([], NOISE)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run folder whose base batch is committed, images included."""
    run = RunFolder(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    run.save_images(BASE, ITEMS, images)
    run.commit(Unit(0, BASE), NO_ROWS, None, [pixel_digest(p) for p in images], "cpu")
    return run


def test_a_committed_unit_is_done(folder: RunFolder) -> None:
    assert set(folder.done(PLAN)) == {Unit(0, BASE)}


def test_the_ledger_knows_which_device_drew_a_unit(folder: RunFolder) -> None:
    assert folder.done(PLAN)[Unit(0, BASE)] == "cpu"


def test_committing_again_changes_no_byte_of_the_rows(folder: RunFolder) -> None:
    path = folder.noise_parts / "00000-base.arrow"
    before = path.read_bytes()
    folder.commit(Unit(0, BASE), NO_ROWS, None, folder.ledger()[Unit(0, BASE)]["images"], "cpu")
    assert path.read_bytes() == before
    assert set(folder.done(PLAN)) == {Unit(0, BASE)}


def test_a_unit_counts_while_its_further_judges_rows_are_what_the_ledger_says(folder: RunFolder) -> None:
    unit, path = Unit(0, "a"), folder.judged / "00000-a.arrow"
    rows, judged = pa.Table.from_pylist([], SCORES), pa.Table.from_pylist([], JUDGED)
    folder.commit(unit, rows, None, [], "cpu")
    assert "judged_sha256" not in folder.ledger()[unit]
    assert not folder.judged.exists()
    for _ in range(2):
        folder.commit(unit, rows, None, [], "cpu", judged)
        whole = path.read_bytes()
        assert unit in folder.done(PLAN)
        path.write_bytes(whole[:-1])
        assert unit not in folder.done(PLAN)
    path.unlink()
    assert unit not in folder.done(PLAN)
    folder.commit(unit, rows, None, [], "cpu", judged)
    assert path.read_bytes() == whole


def test_a_unit_with_a_changed_file_is_not_done(folder: RunFolder) -> None:
    path = folder.noise_parts / "00000-base.arrow"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert set(folder.done(PLAN)) == set()


@pytest.mark.parametrize("damage", ["delete", "truncate", "repaint"])
def test_a_base_batch_without_its_images_is_drawn_again(folder: RunFolder, damage: str) -> None:
    path = folder.image(BASE, "p000", 1)
    if damage == "delete":
        path.unlink()
    elif damage == "truncate":
        path.write_bytes(path.read_bytes()[:50])
    else:
        folder.save_images(BASE, ITEMS[1:], np.zeros((1, 8, 8, 3), np.uint8))
    assert set(folder.done(PLAN)) == set()


def test_a_finished_block_needs_its_base_images_no_more(folder: RunFolder) -> None:
    folder.commit(Unit(0, "a"), pa.Table.from_pylist([], SCORES), None, [], "cpu")
    folder.image(BASE, "p000", 1).unlink()
    assert set(folder.done(PLAN)) == set(PLAN.units)


def test_a_torn_ledger_line_is_no_entry(folder: RunFolder) -> None:
    ledger = folder.root / "ledger.jsonl"
    whole = ledger.read_bytes()
    for cut in range(len(whole)):
        ledger.write_bytes(whole[:cut])
        expected = {Unit(0, BASE)} if cut == len(whole) - 1 else set()
        assert set(folder.ledger()) == expected
    ledger.write_bytes(whole + b'{"block": 0, "adap')
    assert set(folder.ledger()) == {Unit(0, BASE)}


def test_of_a_unit_committed_twice_the_file_that_is_there_counts(folder: RunFolder) -> None:
    """From another device its bytes may differ, and then from the first one again."""
    of = {device: pa.Table.from_pylist([{"device": device}]) for device in ("cpu", "gpu")}
    for device in ("cpu", "gpu", "cpu"):
        folder.commit(Unit(0, "a"), of[device], None, [], device)
        assert folder.done(PLAN)[Unit(0, "a")] == folder.ledger()[Unit(0, "a")]["device"] == device


def test_images_survive_to_the_bit(folder: RunFolder) -> None:
    image = np.random.default_rng(1).integers(0, 256, (17, 9, 3), dtype=np.uint8)
    folder.save_images("a", (Item("p000", "a cup", "objects", 5),), image[None])
    assert np.array_equal(folder.read_images("a", (Item("p000", "", "", 5),)), image[None])


def test_a_killed_writer_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    code = (
        "import itertools, sys; from pathlib import Path\n"
        "from raymap.store.files import write_atomically\n"
        "print('up', flush=True)\n"
        "for k in itertools.count(): write_atomically(Path(sys.argv[1]), bytes([k % 256]) * 3_000_000)\n"
    )
    for wait in (0.05, 0.11, 0.17, 0.3):
        process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        while not path.exists():
            time.sleep(0.01)
        time.sleep(wait)  # so that each is killed somewhere else in its work
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        data = path.read_bytes()
        assert len(data) == 3_000_000
        assert len(set(data)) == 1


def test_writing_leaves_no_temporary_file(tmp_path: Path) -> None:
    write_atomically(tmp_path / "deep" / "file", b"x")
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["file"]


@pytest.mark.parametrize("schema", [SCORES, NOISE, MAP, JUDGED, JUDGED_MAP])
def test_schemas_carry_meaning_and_digest(schema: pa.Schema) -> None:
    table = pa.Table.from_pylist([], stamped(schema, "abc"))
    read = pa.ipc.open_file(arrow_bytes(table)).schema
    assert read.metadata[b"raymap.digest"] == b"abc"
    assert all(read.field(name).metadata[b"meaning"] for name in read.names)
    assert read.names == schema.names


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB; skips where none may be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system may be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_named_and_what_was_there_stays(small_disk: Path) -> None:
    folder = RunFolder(small_disk)
    write_atomically(small_disk / "file", b"whole")
    folder.record_failure(Unit(0, "a"), "first")
    (small_disk / "ballast").write_bytes(b"x" * 100_000)
    with pytest.raises(StorageError, match="cannot be written") as refused:
        write_atomically(small_disk / "file", b"y" * 300_000)
    assert refused.value.exit_code == 3
    assert sorted(path.name for path in small_disk.iterdir()) == ["ballast", "failures.jsonl", "file"]
    assert (small_disk / "file").read_bytes() == b"whole"
    with pytest.raises(StorageError, match=r"failures\.jsonl"):
        folder.record_failure(Unit(1, "a"), "z" * 300_000)
    (small_disk / "ballast").unlink()
    folder.record_failure(Unit(2, "a"), "last")
    lines = (small_disk / "failures.jsonl").read_bytes().split(b"\n")
    assert b"first" in lines[0]
    assert b"last" in lines[-2]


def test_a_line_after_a_torn_one_stands_alone(folder: RunFolder) -> None:
    ledger = folder.root / "ledger.jsonl"
    ledger.write_bytes(ledger.read_bytes() + b'{"block": 0, "adap')
    folder.commit(Unit(0, "a"), pa.Table.from_pylist([], SCORES), None, [], "cpu")
    assert set(folder.ledger()) == {Unit(0, BASE), Unit(0, "a")}


def test_of_two_drivers_on_a_folder_the_second_is_refused_wherever_it_runs(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from raymap.errors import InputError; from raymap.store.lock import locked\n"
        "try:\n"
        "    with locked(Path(sys.argv[1])): print('holds')\n"
        "except InputError as error: print(error)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with locked(tmp_path):
        with pytest.raises(InputError, match="is in use by another raymap"), locked(tmp_path):
            pass
        there = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert "is in use by another raymap" in there
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "holds\n"


def test_a_lock_ends_with_its_process_and_its_file_stays(tmp_path: Path) -> None:
    """The file may be there from the start, as in a folder of an earlier version."""
    (tmp_path / ".lock").write_bytes(b"of old")
    code = (
        "import sys; from pathlib import Path; from raymap.store.lock import locked\n"
        "with locked(Path(sys.argv[1])): print('holds', flush=True); sys.stdin.readline()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"holds\n"
    with pytest.raises(InputError, match="is in use by another raymap"), locked(tmp_path):
        pass
    process.kill()
    process.communicate()
    with locked(tmp_path):
        check_seen(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_file_system_without_locks_is_not_called_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")

    def refuse(file: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(InputError, match="without file locks"), locked(tmp_path):
        pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="run cannot be written"), locked(tmp_path / "file" / "run"):
        pass


def test_a_file_that_is_not_there_reads_as_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    assert read_if_there(tmp_path / "file") == b"content"
    assert read_if_there(tmp_path / "none") is None
    assert read_if_there(tmp_path / "file" / "below") is None
    assert list(read_each([tmp_path / "none", tmp_path / "file", tmp_path])) == [None, b"content", None]
