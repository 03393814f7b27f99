"""The implementation of attention (`torch.nn.attention.SDPBackend`) that a setup draws with."""

from __future__ import annotations

import contextlib
import warnings
from contextlib import AbstractContextManager

import torch
from diffusers import StableDiffusionPipeline
from torch.nn.attention import SDPBackend, sdpa_kernel

BACKENDS = {
    "math": SDPBackend.MATH,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}


def attention_backend(attention: str) -> AbstractContextManager[object]:
    """Return a context in which the named backend computes attention; `auto` leaves the choice to torch.

    What that backend cannot compute, `math` does: no fused backend takes the masks of a text encoder or the single wide
    head of a decoder. `check_attention` makes sure that it computes the denoiser's attention.
    """
    if attention == "auto":
        return contextlib.nullcontext()
    return sdpa_kernel([BACKENDS[attention], SDPBackend.MATH], set_priority=True)


@torch.no_grad()
def check_attention(pipeline: StableDiffusionPipeline, attention: str) -> None:
    """Check that a backend can compute the denoiser's attention, by running the denoiser with no other backend.

    Raises:
        RuntimeError: it cannot, on this device and in this dtype; the message has torch's reasons.
    """
    if attention == "auto":
        return
    unet = pipeline.unet
    options = {"device": unet.device, "dtype": unet.dtype}
    side, channels, width = unet.config.sample_size, unet.config.in_channels, unet.config.cross_attention_dim
    latents = torch.zeros(2, channels, side, side, **options)
    text = torch.zeros(2, pipeline.tokenizer.model_max_length, width, **options)
    with warnings.catch_warnings(record=True) as caught, sdpa_kernel(BACKENDS[attention]):
        warnings.simplefilter("always")
        try:
            unet(latents, 1, encoder_hidden_states=text)
        except RuntimeError as error:
            reasons = [str(warning.message).partition(" (Triggered")[0] for warning in caught]
            where = f"{unet.device.type} in {str(unet.dtype).removeprefix('torch.')}"
            raise RuntimeError(
                f"attention: {attention} cannot run here ({where}): {error} {' '.join(reasons)}"
            ) from None
