"""A worker's device: the settings that are pinned on it, and its name."""

from __future__ import annotations

import torch


def pin(threads: int) -> None:
    """Pin what decides the last bits of an image: the number of threads, and cuDNN's choice of kernels."""
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False


def device_name(device: str) -> str:
    """Return what tells apart devices that draw different last bits: a GPU's name, a CPU's vector instructions."""
    if device == "cuda":
        return f"cuda {torch.cuda.get_device_name()}"
    return f"{device} {torch.backends.cpu.get_cpu_capability()}"
