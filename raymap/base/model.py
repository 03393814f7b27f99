"""A base as a run knows it, before anything of it is loaded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Self

from raymap.base.checkpoint import Checkpoint, check_denoiser, digest_with, names_file, outline_for
from raymap.base.complete import check_folder
from raymap.base.families.family import Family
from raymap.base.families.registry import family_at
from raymap.base.flops import Flops, count_flops
from raymap.base.folder import OUTLINES, digest, local_file, outline_of, pinned, resolve, tokenizer_at
from raymap.base.parts import Parts, parts_of
from raymap.base.settings import OwnSettings, own_settings
from raymap.base.shapes import config_of, index_of, shapes_of
from raymap.base.skeleton import Skeleton, read_skeleton
from raymap.errors import InputError
from raymap.study.model import SamplerSettings


@dataclass(frozen=True)
class Base:
    """A base: its name in a study, its folder on this node, its family, and facts that are read from its files.

    `file` is a single file that holds the weights: those of the denoiser, which it replaces, or, beside the packaged
    configurations of an outline, all of them. A fact is read when it is first asked for, and never again.
    """

    name: str
    folder: Path
    family: Family
    file: Checkpoint | None = None

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
        return self.folder.parent == OUTLINES and self.file is None

    @property
    def pinned(self) -> str:
        """The name by which every node gets the same files: a hub id with the commit that this node has."""
        return pinned(self.name, self.folder)

    @property
    def weights(self) -> str | None:
        """The name of the file that replaces the denoiser's weights; None where there is none."""
        return self.file.name if self.file and self.file.name != self.name else None

    @cached_property
    def sha256(self) -> str:
        """The digest of all files that decide an image."""
        return digest(self.folder) if self.file is None else digest_with(self.folder, self.file)

    @cached_property
    def own(self) -> OwnSettings:
        """What its folder says about drawing."""
        return own_settings(self.folder)

    def sampler(self, asked: SamplerSettings) -> SamplerSettings:
        """Return settings with its own steps and guidance scale, or its family's, where a study left them out."""
        return self.family.sampler(self.own.completed(asked))

    @cached_property
    def parts(self) -> Parts:
        """Its components."""
        return parts_of(index_of(self.folder))

    @cached_property
    def skeleton(self) -> Skeleton:
        """What it offers to adapters. Raises InputError where a weight file cannot be read."""
        folders = {encoder: tokenizer_at(self.folder, name) for encoder, name in self.parts.tokenizers.items()}
        return read_skeleton(self.folder, self.family, {name: at for name, at in folders.items() if at})

    @cached_property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels of the images that it draws where a study asks for no size."""
        call = self.own.call
        if "height" in call and "width" in call:
            return call["height"], call["width"]
        if self.family.size:
            return self.family.size
        side = int(config_of(self.folder, self.parts.denoisers[0])["sample_size"]) * self.pixels
        return side, side

    @cached_property
    def pixels(self) -> int:
        """How many image pixels there are to a latent pixel, along a side."""
        config = config_of(self.folder, "vae")
        ratio = config.get("spatial_compression_ratio") or config.get("scale_factor_spatial")
        stages = config.get("block_out_channels") or config.get("dim_mult", ())  # each but the last halves the sides
        return int(ratio or 2 ** (len(stages) - 1))

    def flops(self, size: tuple[int, int] | None = None) -> Flops:
        """Return the FLOPs of one image of a height and width in pixels; by default as it draws without being asked."""
        denoiser, autoencoder = (shapes_of(self.folder, part) for part in (self.parts.denoisers[0], "vae"))
        latents = tuple(side // self.pixels for side in size or self.size)
        return count_flops(self.family, denoiser, autoencoder, latents[0], self.skeleton.text_length)

    @cached_property
    def heads(self) -> int:
        """The number of attention heads in the denoiser's layer with the fewest."""
        config = config_of(self.folder, self.parts.denoisers[0])
        # What diffusers' UNet calls `attention_head_dim` it takes for the number of heads.
        heads = next(config[key] for key in ("num_attention_heads", "n_heads", "attention_head_dim") if config.get(key))
        return min(heads) if isinstance(heads, list) else heads


def open_base(name: str, weights: str | None = None, outline: bool = False) -> Base:
    """Return a base by the name that a study gives it; a URL or a hub id is fetched first.

    Args:
        weights: the path or URL of a single file whose denoiser takes the place of the base's.
        outline: the outline of a known architecture may stand in for a hub id that was not fetched yet.

    Raises:
        InputError: as `resolve`, or it is of no known family; as `check_folder`, `outline_for` and `check_denoiser`.
    """
    if names_file(name):
        if weights:
            raise InputError(
                f"weights: {weights}", "stands beside a base that is a single file", "give only one of them"
            )
        file = Checkpoint(name, local_file(name))
        return replace(Base.at(outline_for(file), name), file=file)
    base = Base.at((outline_of(name) if outline else None) or resolve(name), name)
    if not base.is_outline:
        check_folder(base.folder, base.family)
    if weights is None:
        return base
    file = Checkpoint(weights, local_file(weights))
    check_denoiser(file, base.folder, base.family)
    return replace(base, file=file)
