"""A base as a run knows it, before anything of it is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

from raymap.base.families.family import Family
from raymap.base.families.registry import family_at
from raymap.base.flops import Flops, count_flops
from raymap.base.folder import OUTLINES, digest, outline_of, pinned, resolve, tokenizer_folder
from raymap.base.shapes import config_of, shapes_of
from raymap.base.skeleton import Skeleton, read_skeleton


@dataclass(frozen=True)
class Base:
    """A base: its name in a study, its folder on this node, its family, and facts that are read from its files.

    A fact is read when it is first asked for, and never again.
    """

    name: str
    folder: Path
    family: Family

    @classmethod
    def at(cls, folder: Path, name: str | None = None) -> Self:
        """Return the base in a folder.

        Raises:
            InputError: it is of no known family.
        """
        return cls(name or str(folder), folder, family_at(folder, name))

    @property
    def is_outline(self) -> bool:
        """Whether only the configurations of its known architecture are here, and no weights."""
        return self.folder.parent == OUTLINES

    @property
    def pinned(self) -> str:
        """The name by which every node gets the same files: a hub id with the commit that this node has."""
        return pinned(self.name, self.folder)

    @cached_property
    def sha256(self) -> str:
        """The digest of all files that decide an image."""
        return digest(self.folder, self.family)

    @cached_property
    def skeleton(self) -> Skeleton:
        """What it offers to adapters. Raises InputError where a weight file cannot be read."""
        return read_skeleton(self.folder, self.family, tokenizer_folder(self.folder, self.family))

    @cached_property
    def side(self) -> int:
        """The side in pixels of the images that it draws."""
        return self._latent_side * 2 ** (len(config_of(self.folder, "vae")["block_out_channels"]) - 1)

    @cached_property
    def flops(self) -> Flops:
        """The FLOPs of one image."""
        denoiser, autoencoder = (
            shapes_of(self.folder, part, self.family.hub_prefix) for part in (self.family.denoiser, "vae")
        )
        return count_flops(self.family, denoiser, autoencoder, self._latent_side, self.skeleton.text_length)

    @cached_property
    def heads(self) -> int:
        """The number of attention heads in the denoiser's layer with the fewest."""
        config = config_of(self.folder, self.family.denoiser)
        heads = (
            config.get("num_attention_heads") or config["attention_head_dim"]
        )  # what diffusers' UNet takes for heads
        return min(heads) if isinstance(heads, list) else heads

    @property
    def _latent_side(self) -> int:
        return int(config_of(self.folder, self.family.denoiser)["sample_size"])


def open_base(name: str, outline: bool = False) -> Base:
    """Return a base by the name that a study gives it; a URL or a hub id is fetched first.

    Args:
        outline: the outline of a known architecture may stand in for a hub id that was not fetched yet.

    Raises:
        InputError: as `resolve`, or it is of no known family.
    """
    folder = outline_of(name) if outline else None
    return Base.at(folder or resolve(name), name)
