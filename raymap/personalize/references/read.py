"""Reference images of a subject: checked before anything starts, read as squares of the base's size."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Collection
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from raymap.errors import InputError
from raymap.personalize.references.provenance import check_origin
from raymap.study.model import Subject

MAX_PIXELS = 50_000_000
MIN_SIDE = 16


def read_reference(path: Path, size: int) -> np.ndarray:
    """Return an image as uint8 (size, size, 3): upright, its middle square, resized with antialiasing.

    Raises:
        InputError: a missing, corrupt, tiny or enormous file.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                if image.width * image.height > MAX_PIXELS or min(image.size) < MIN_SIDE:
                    problem = f"is {image.width}x{image.height} pixels"
                    raise InputError(str(path), problem, f"give {MIN_SIDE} pixels a side to {MAX_PIXELS} in all")
                upright = ImageOps.exif_transpose(image).convert("RGB")
    except FileNotFoundError as error:
        raise InputError(str(path), "does not exist", "correct `references:`") from error
    except (
        UnidentifiedImageError,
        OSError,
        SyntaxError,
        ValueError,
        Image.DecompressionBombWarning,
    ) as error:
        raise InputError(str(path), f"is no readable image ({error})", "replace the file") from error
    return np.asarray(ImageOps.fit(upright, (size, size), Image.Resampling.LANCZOS))


def check_references(subject: Subject, absent: Collection[Path] = ()) -> dict[str, str]:
    """Decode every reference of a subject that is not `absent` and return file name -> SHA-256 of the file.

    Raises:
        InputError: naming the file that cannot be used, or that is not the one its folder's card describes.
    """
    digests = {}
    for path in subject.references:
        if path in absent:
            continue
        read_reference(path, 64)
        digests[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
        check_origin(path, digests[path.name])
    return digests
