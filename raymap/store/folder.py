"""The run folder on disk: atomic files, an append-only ledger, lossless images."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from raymap.errors import InputError
from raymap.plan import BASE, Block, Plan, Unit


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all: temporary name, fsync, rename, fsync of the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def arrow_bytes(table: pa.Table) -> bytes:
    """Return a table as an Arrow IPC file."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def pixel_digest(pixels: np.ndarray) -> str:
    """Return the SHA-256 of one picture's uint8 pixels."""
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


def as_json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False, sort_keys=False) + "\n").encode()


@dataclass(frozen=True)
class RunFolder:
    """Paths and file formats of a run folder. Holds no state: what is done, the ledger says."""

    root: Path

    @property
    def scores(self) -> Path:
        return self.root / "scores"

    @property
    def noise_parts(self) -> Path:
        return self.root / "noise"

    @property
    def report(self) -> Path:
        return self.root / "report" / "index.html"

    def adapter(self, name: str) -> Path:
        return self.root / "adapters" / name

    def training(self, name: str) -> Path:
        """Where a training in progress keeps its checkpoint and what it has written."""
        return self.root / "training" / name

    def image(self, adapter: str, prompt_id: str, seed: int) -> Path:
        return self.root / "images" / adapter / prompt_id / f"{seed}.png"

    def save_image(self, adapter: str, prompt_id: str, seed: int, pixels: np.ndarray) -> None:
        """Write one picture, uint8 (H, W, 3), as PNG; no fsync: a torn one is found by its digest and redrawn."""
        path = self.image(adapter, prompt_id, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        Image.fromarray(pixels).save(temporary, format="PNG", compress_level=3)
        temporary.replace(path)

    def read_image(self, adapter: str, prompt_id: str, seed: int) -> np.ndarray:
        """Return a kept picture, uint8 (H, W, 3)."""
        with Image.open(self.image(adapter, prompt_id, seed)) as image:
            return np.asarray(image.convert("RGB"))

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for one driver; the lock goes with the process, however it ends.

        Raises:
            InputError: when another raymap works in this folder.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            file = (self.root / ".lock").open("w")
        except OSError as error:
            raise InputError(
                str(self.root), f"cannot be written ({error.strerror})", "give another --output"
            ) from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                problem = "is in use by another raymap"
                raise InputError(str(self.root), problem, "wait for it or give another --output") from error
            yield

    def commit(self, unit: Unit, table: pa.Table, images: list[str], device: str) -> None:
        """Write a unit's rows and then its ledger line. Repeating it changes nothing but adds an equal line.

        Args:
            images: pixel digests of the unit's pictures, in the block's order.
            device: what drew them.
        """
        folder = self.noise_parts if unit.adapter == BASE else self.scores
        path = folder / f"{unit.key}.arrow"
        data = arrow_bytes(table)
        write_atomically(path, data)
        line = {
            "block": unit.block,
            "adapter": unit.adapter,
            "file": path.relative_to(self.root).as_posix(),
            "rows": table.num_rows,
            "sha256": hashlib.sha256(data).hexdigest(),
            "device": device,
            "images": images,
        }
        self._append("ledger.jsonl", line)

    def record_failure(self, unit: Unit, problem: str) -> None:
        """Append a unit that could not be drawn or scored to failures.jsonl."""
        self._append("failures.jsonl", {"block": unit.block, "adapter": unit.adapter, "problem": problem})

    def _append(self, name: str, line: dict[str, Any]) -> None:
        with (self.root / name).open("ab") as file:
            file.write(json.dumps(line).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def ledger(self) -> dict[Unit, dict[str, Any]]:
        """Return the ledger's entries, first line wins; a torn last line is not one."""
        path = self.root / "ledger.jsonl"
        entries: dict[Unit, dict[str, Any]] = {}
        if path.exists():
            for line in path.read_bytes().split(b"\n"):
                with contextlib.suppress(ValueError):
                    entry = json.loads(line)
                    entries.setdefault(Unit(entry["block"], entry["adapter"]), entry)
        return entries

    def done(self, plan: Plan) -> dict[Unit, str]:
        """Return the plan's units that need no drawing, and what drew each: their file is what the ledger says.

        A base batch counts only while its pictures are there too, if its block still needs them.
        """
        done = {}
        entries = self.ledger()
        for unit in plan.units:
            entry = entries.get(unit)
            if entry is not None:
                path = self.root / entry["file"]
                if path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == entry["sha256"]:
                    done[unit] = entry["device"]
        for block in plan.blocks:
            base = Unit(block.index, BASE)
            whole = all(Unit(block.index, a.name) in done for a in plan.adapters)
            if base in done and not whole and not self._has_pictures(block, entries[base]["images"]):
                del done[base]
        return done

    def _has_pictures(self, block: Block, digests: list[str]) -> bool:
        try:
            return digests == [pixel_digest(self.read_image(BASE, i.prompt_id, i.seed)) for i in block.items]
        except (OSError, SyntaxError):  # Pillow raises SyntaxError for some broken PNG files
            return False
