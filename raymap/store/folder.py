"""The run folder: its paths, its lossless images, and the ledger of finished units."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from raymap.errors import IncompleteRunError
from raymap.plan.blocks import Block, Item, Plan, Unit
from raymap.store.files import append_line, files_in, is_local, read_each, write_atomically, write_images


def arrow_bytes(table: pa.Table) -> bytes:
    """Return a table as an Arrow IPC file."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def pixel_digest(pixels: np.ndarray) -> str:
    """Return the SHA-256 of an image's uint8 pixels, in hexadecimal digits."""
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


@dataclass(frozen=True)
class RunFolder:
    """Paths and file formats of a run folder; the only state is in its files, and the ledger records what is done."""

    root: Path

    @property
    def scores(self) -> Path:
        return self.root / "scores"

    @property
    def interventions(self) -> Path:
        """The folder of scores under variants of adapters, which are not part of the map."""
        return self.root / "interventions"

    @property
    def noise_parts(self) -> Path:
        return self.root / "noise"

    @property
    def features(self) -> Path:
        return self.root / "features"

    @property
    def judged(self) -> Path:
        """The folder of further judges' rows; it exists only in runs that have such judges."""
        return self.root / "judged"

    @property
    def report(self) -> Path:
        return self.root / "report" / "index.html"

    def adapter(self, name: str) -> Path:
        return self.root / "adapters" / name

    def training(self, name: str) -> Path:
        """Return the folder in which a training in progress keeps its checkpoint and its output."""
        return self.root / "training" / name

    def image(self, adapter: str, prompt_id: str, seed: int) -> Path:
        return self.root / "images" / adapter / prompt_id / f"{seed}.png"

    def save_images(self, adapter: str, items: Sequence[Item], images: np.ndarray, durable: bool = False) -> None:
        """Write images, uint8 (N, H, W, 3), as PNG.

        Without `durable` there is no fsync, which suffices for the base: `done` recognizes a torn base image by its
        digest, and the batch is drawn again.

        Raises:
            StorageError: a file cannot be written.
        """
        files = {}
        for item, pixels in zip(items, images, strict=True):
            data = io.BytesIO()
            Image.fromarray(pixels).save(data, format="PNG", compress_level=3)
            files[self.image(adapter, item.prompt_id, item.seed)] = data.getvalue()
        write_images(files, durable)

    def read_images(self, adapter: str, items: Sequence[Item]) -> np.ndarray:
        """Return saved images, uint8 (N, H, W, 3).

        Raises:
            OSError: a file is missing, or is not an image.
        """
        contents = read_each([self.image(adapter, item.prompt_id, item.seed) for item in items])
        return np.stack([_decode(content or b"") for content in contents])

    def commit(
        self,
        unit: Unit,
        table: pa.Table,
        features: pa.Table | None,
        images: list[str],
        device: str,
        judged: pa.Table | None = None,
    ) -> None:
        """Write a unit's features, its rows and, last, its ledger line. A repetition on one device writes equal rows.

        Args:
            images: pixel digests of the unit's images, in the block's order.
            device: the type of device that drew them.
            judged: rows of further judges; the ledger line has their file's digest, too.

        Raises:
            StorageError: a file cannot be written.
        """
        folder = self.noise_parts if unit.is_base else self.scores
        if unit.is_intervention:
            folder, features = self.interventions, None  # distances are measured for adapters only, not for variants
        path = folder / f"{unit.key}.arrow"
        data = arrow_bytes(table)
        if features is not None:
            write_atomically(self.features / f"{unit.key}.arrow", arrow_bytes(features))
        write_atomically(path, data)
        judgements = {}
        if judged is not None:
            judged_data = arrow_bytes(judged)
            write_atomically(self.judged / f"{unit.key}.arrow", judged_data)
            judgements = {"judged_sha256": hashlib.sha256(judged_data).hexdigest()}
        line = {
            "block": unit.block,
            "adapter": unit.adapter,
            "file": path.relative_to(self.root).as_posix(),
            "rows": table.num_rows,
            "sha256": hashlib.sha256(data).hexdigest(),
            **judgements,
            "device": device,
            "images": images,
        }
        self._append("ledger", unit, line)

    def record_failure(self, unit: Unit, problem: str) -> None:
        """Record in failures.jsonl why a unit could not be drawn or scored."""
        self._append("failures", unit, {"block": unit.block, "adapter": unit.adapter, "problem": problem})

    def check_complete(self, plan: Plan, failed: Collection[Unit]) -> None:
        """Check that no batch of a plan failed while it was drawn or measured.

        Raises:
            IncompleteRunError: some batches failed; failures.jsonl says why, and the same command tries them again.
        """
        if failed:
            problem = f"{len(failed)} of {len(plan.units)} batches failed ({self.root / 'failures.jsonl'})"
            raise IncompleteRunError(f"{problem}; the same command tries them again")

    def _append(self, journal: str, unit: Unit, line: dict[str, Any]) -> None:
        data = json.dumps(line).encode()
        if is_local(self.root):
            append_line(self.root / f"{journal}.jsonl", data)
        else:  # an object store cannot append: each line is an object, and `join_journals` makes them one file
            write_atomically(self.root / journal / f"{unit.key}.json", data)

    def _lines(self, journal: str) -> list[bytes]:
        """Return a journal's lines in order; of equal lines only the last is kept."""
        pieces = [] if is_local(self.root) else files_in(self.root / journal, ".json")
        contents = read_each([self.root / f"{journal}.jsonl", *pieces])
        lines = [line for content in contents if content for line in content.split(b"\n") if line]
        return list(dict.fromkeys(reversed(lines)))[::-1]

    def join_journals(self) -> None:
        """Write `ledger.jsonl` and `failures.jsonl` of a remote folder from the objects that hold their lines."""
        for journal in () if is_local(self.root) else ("ledger", "failures"):
            if lines := self._lines(journal):
                write_atomically(self.root / f"{journal}.jsonl", b"".join(line + b"\n" for line in lines))

    def ledger(self) -> dict[Unit, dict[str, Any]]:
        """Return the ledger's entries by unit; a torn line is skipped.

        Of several lines of a unit the last one counts, since its file was written last: files that two devices have
        committed for one unit may differ.
        """
        entries: dict[Unit, dict[str, Any]] = {}
        for line in self._lines("ledger"):
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                entries[Unit(entry["block"], entry["adapter"])] = entry
        return entries

    def done(self, plan: Plan) -> dict[Unit, str]:
        """Return the plan's finished units, each with the device that drew it.

        A unit is finished when its file has the digest that the ledger records. A base batch must also have all of its
        images, unless its block no longer needs them.
        """
        entries = self.ledger()
        committed = [unit for unit in plan.units if unit in entries]
        digests = [pair for unit in committed for pair in self._digests(unit, entries[unit])]
        intact = {
            path: content is not None and hashlib.sha256(content).hexdigest() == digest
            for (path, digest), content in zip(digests, read_each([path for path, _ in digests]), strict=True)
        }
        done = {
            unit: entries[unit]["device"]
            for unit in committed
            if all(intact[path] for path, _ in self._digests(unit, entries[unit]))
        }
        for block in plan.blocks:
            base = Unit.of_base(block.index)
            finished = all(Unit(block.index, a.name) in done for a in plan.adapters)
            if base in done and not finished and not self._has_images(base, block, entries[base]["images"]):
                del done[base]
        return done

    def _digests(self, unit: Unit, entry: dict[str, Any]) -> list[tuple[Path, str]]:
        """Return the files that a unit's ledger line names, each with its digest."""
        digests = [(self.root / entry["file"], entry["sha256"])]
        if "judged_sha256" in entry:
            digests.append((self.judged / f"{unit.key}.arrow", entry["judged_sha256"]))
        return digests

    def _has_images(self, unit: Unit, block: Block, digests: list[str]) -> bool:
        try:
            return digests == [pixel_digest(image) for image in self.read_images(unit.adapter, block.items)]
        except (OSError, ValueError):
            return False


def _decode(png: bytes) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(png)) as image:
            return np.asarray(image.convert("RGB"))
    except SyntaxError as error:  # what Pillow raises for some broken PNG files
        raise OSError(str(error)) from error
