"""A worker's device: what is pinned on it, and what it is called."""

from __future__ import annotations

import torch


def pin(threads: int) -> None:
    """Pin what decides a picture's last bits: the number of threads, and cuDNN's choice of kernels."""
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False


def device_name(device: str) -> str:
    """Return what tells devices apart that draw different last bits: a GPU's name, a CPU's vector instructions."""
    if device == "cuda":
        return f"cuda {torch.cuda.get_device_name()}"
    return f"{device} {torch.backends.cpu.get_cpu_capability()}"
