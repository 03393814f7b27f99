"""Reads reference images: checks them before anything starts, and gives squares of the size that the base draws."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Collection
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from raymap.errors import InputError
from raymap.personalize.references.provenance import check_origin
from raymap.study.subject import Subject

MAX_PIXELS = 50_000_000
MIN_SIDE = 16


def read_reference(path: Path, size: int) -> np.ndarray:
    """Return an image as uint8 (size, size, 3): upright, cropped to its middle square, resized with antialiasing.

    Raises:
        InputError: the file is missing or damaged, or the image is too small or too large.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                if image.width * image.height > MAX_PIXELS or min(image.size) < MIN_SIDE:
                    problem = f"is {image.width}x{image.height} pixels"
                    remedy = f"give an image with at least {MIN_SIDE} pixels per side and at most {MAX_PIXELS} in all"
                    raise InputError(str(path), problem, remedy)
                upright = ImageOps.exif_transpose(image).convert("RGB")
    except FileNotFoundError as error:
        raise InputError(str(path), "does not exist", "correct `references:`") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombWarning) as error:
        raise InputError(str(path), f"is not a readable image ({error})", "replace the file") from error
    return np.asarray(ImageOps.fit(upright, (size, size), Image.Resampling.LANCZOS))


def check_references(subject: Subject, absent: Collection[Path] = ()) -> dict[str, str]:
    """Decode every reference of a subject except those that are `absent`, and return file name -> SHA-256 of the file.

    Raises:
        InputError: naming a file that cannot be used, or that the card of its folder does not describe.
    """
    digests = {}
    for path in subject.references:
        if path in absent:
            continue
        read_reference(path, 64)
        digests[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
        check_origin(path, digests[path.name])
    return digests
