"""The estimate of a device's memory holds against the tensors that are alive while the real models compute."""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel, UNet2DConditionModel
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from raymap.base.families.flux import FLUX
from raymap.base.families.stable_diffusion import STABLE_DIFFUSION
from raymap.base.folder import OUTLINES
from raymap.base.memory import Memory, decoding_bytes, denoising_bytes, weight_bytes
from raymap.base.model import Base
from raymap.base.shapes import shapes_in
from raymap.embedded.model import PIPELINE
from raymap.study.model import MemorySettings

SD15 = OUTLINES / "sd15"


class Alive(TorchDispatchMode):
    """Counts the bytes of all storages that operations make, as long as they are alive."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._sizes = {tensor.untyped_storage()._cdata: 0 for tensor in (*module.parameters(), *module.buffers())}
        self._now = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata not in self._sizes:
                storage = tensor.untyped_storage()
                self._sizes[storage._cdata] = storage.nbytes()
                self._now += storage.nbytes()
                self.peak = max(self.peak, self._now)
                weakref.finalize(storage, self._free, storage._cdata)
        return result

    def _free(self, key: int) -> None:
        self._now -= self._sizes.pop(key, 0)


@contextmanager
def half() -> Iterator[None]:
    """Have tensors made in float16 and without storage."""
    torch.set_default_dtype(torch.float16)
    try:
        with FakeTensorMode(), torch.no_grad():
            yield
    finally:
        torch.set_default_dtype(torch.float32)


def peak(module: nn.Module, call: Callable[..., Any], *args: Any, **kwargs: Any) -> int:
    """Return the most bytes that are alive beside weights."""
    with Alive(module) as alive:
        call(*args, **kwargs)
    return alive.peak


def config(part: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((SD15 / part / "config.json").read_text())
    return found


def test_what_a_unet_keeps_alive_is_foreseen() -> None:
    with half():
        unet = UNet2DConditionModel(**config("unet")).eval()
        counted = peak(unet, unet, torch.zeros(1, 4, 64, 64), torch.tensor(1), torch.zeros(1, 77, 768))
        shapes = shapes_in(unet)
    foreseen = denoising_bytes(STABLE_DIFFUSION, shapes, {}, (64, 64), 77, "float16")
    assert counted <= foreseen <= 1.5 * counted


def test_what_a_decoder_keeps_alive_is_foreseen() -> None:
    with half():
        vae = AutoencoderKL(**config("vae")).eval()
        counted = peak(vae, vae.decode, torch.zeros(1, 4, 64, 64))
        shapes = shapes_in(vae)
    foreseen = decoding_bytes(shapes, {}, (512, 512), (64, 64), "float16", tiled=False)
    assert counted <= foreseen <= 1.5 * counted


def test_what_a_transformer_keeps_alive_is_foreseen() -> None:
    with half():
        flux = FluxTransformer2DModel(num_layers=1, num_single_layers=1).eval()
        counted = peak(
            flux,
            flux,
            hidden_states=torch.zeros(1, 4096, 64),
            encoder_hidden_states=torch.zeros(1, 512, 4096),
            pooled_projections=torch.zeros(1, 768),
            timestep=torch.ones(1),
            img_ids=torch.zeros(4096, 3),
            txt_ids=torch.zeros(512, 3),
        )
        shapes, own = shapes_in(flux), dict(flux.config)
    foreseen = denoising_bytes(FLUX, shapes, own, (128, 128), 512, "float16")
    assert counted <= foreseen <= 1.5 * counted


def test_weights_are_those_of_the_files() -> None:
    base = Base.at(PIPELINE)
    found = base.memory(base.size, "float32", MemorySettings())
    files = {path.parent.name: path for path in PIPELINE.glob("*/*.safetensors")}
    stored = {"unet": found.denoiser, "vae": found.autoencoder, "text_encoder": sum(found.encoders)}
    for part, bytes_ in stored.items():  # the package keeps weights in float16
        assert bytes_ == pytest.approx(2 * files[part].stat().st_size, rel=0.01)


def test_a_quantised_denoiser_takes_fewer_bytes() -> None:
    shapes = {"a.weight": (1000, 1000), "a.bias": (1000,)}
    assert weight_bytes(shapes, "bfloat16") == 2_002_000
    assert weight_bytes(shapes, "bfloat16", "int8") == 1_002_000
    assert weight_bytes(shapes, "bfloat16", "nf4") == 562_500 + 2_000


def test_what_waits_in_the_hosts_memory_takes_none() -> None:
    memory = Memory(denoiser=24, encoders=(1, 9), autoencoder=2, denoising=3, decoding=5, adapters=1)
    assert memory.needed("none") == 24 + 10 + 2 + 1 + 5
    assert memory.needed("encoders") == 24 + 2 + 1 + 10
    assert memory.needed("model") == 1 + 24 + 3
