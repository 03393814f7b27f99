"""Quantised bases: which package stores a denoiser's matrices in fewer bits, and how diffusers is asked for it."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from raymap.errors import InputError
from raymap.study.model import Quantize

PACKAGES: dict[Quantize, str] = {"int8": "torchao", "nf4": "bitsandbytes"}


def check_quantize(kind: Quantize, device: str) -> None:
    """Check that a base can be quantised so here.

    Raises:
        InputError: the package that does it is not installed, or works on GPUs alone.
    """
    package = PACKAGES.get(kind)
    where = f"memory.quantize: {kind}"
    if package is not None and find_spec(package) is None:
        raise InputError(where, f"{package} is not installed", f"install it on all nodes: pip install {package}")
    if kind == "nf4" and device == "cpu":
        remedy = "give workers a GPU (`resources.gpus_per_worker: 1`), or write `quantize: int8`"
        raise InputError(where, "bitsandbytes quantises on a GPU alone, and workers have none", remedy)


def quantization(kind: Quantize, denoisers: tuple[str, ...], dtype: Any) -> dict[str, Any]:
    """Return the arguments of a pipeline's `from_pretrained` that have its denoisers quantised.

    Args:
        dtype: torch's, in which products are computed.
    """
    if kind == "none":
        return {}
    from diffusers import BitsAndBytesConfig, PipelineQuantizationConfig, TorchAoConfig

    own: Any
    if kind == "int8":
        from torchao.quantization import Int8WeightOnlyConfig

        own = TorchAoConfig(Int8WeightOnlyConfig())
    else:
        own = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
    return {"quantization_config": PipelineQuantizationConfig(quant_mapping=dict.fromkeys(denoisers, own))}
