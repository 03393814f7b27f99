"""ΔW of each of LyCORIS's kinds is what the package's own forward pass adds, where it is installed (`lycoris-lora`).

Its merge is no reference: release 4.1.3 scales LoHa and LoKr twice there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from raymap.adapters.read import read_adapter
from tests.adapters.published import skeleton_of

modules = pytest.importorskip("lycoris.modules", reason="the package lycoris-lora is not installed")
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "LoRA": ("locon.LoConModule", {}),
    "LoRA with a scalar": ("locon.LoConModule", {"use_scalar": True}),
    "rank-stabilized": ("locon.LoConModule", {"rs_lora": True}),
    "Tucker core": ("locon.LoConModule", {"use_tucker": True}),
    "DoRA by rows": ("locon.LoConModule", {"weight_decompose": True}),
    "DoRA by columns": ("locon.LoConModule", {"weight_decompose": True, "wd_on_out": False}),
    "LoHa": ("loha.LohaModule", {}),
    "LoHa, Tucker": ("loha.LohaModule", {"use_tucker": True}),
    "LoHa with DoRA": ("loha.LohaModule", {"weight_decompose": True}),
    "LoKr": ("lokr.LokrModule", {"factor": 4}),
    "LoKr, whole": ("lokr.LokrModule", {"factor": 4, "full_matrix": True}),
    "LoKr, both factored": ("lokr.LokrModule", {"factor": 4, "decompose_both": True}),
    "LoKr, Tucker": ("lokr.LokrModule", {"factor": 4, "use_tucker": True}),
    "GLoRA": ("glora.GLoRAModule", {}),
    "IA3": ("ia3.IA3Module", {}),
    "IA3 of inputs": ("ia3.IA3Module", {"train_on_input": True}),
}
LAYERS = {
    "linear": ("lora_unet_input_blocks_1_1_transformer_blocks_0_attn2_to_k", lambda: nn.Linear(768, 320, bias=False)),
    "convolution": ("lora_unet_input_blocks_1_0_in_layers_2", lambda: nn.Conv2d(320, 320, 3, bias=False)),
}


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("kind", KINDS)
def test_an_update_adds_what_the_packages_forward_pass_adds(kind: str, layer: str, tmp_path: Path) -> None:
    where, options = KINDS[kind]
    file, _, cls = where.partition(".")
    name, built = LAYERS[layer]
    torch.manual_seed(0)
    own: Any = built().double()
    module = getattr(getattr(modules, file), cls)("any", own, multiplier=1.0, lora_dim=2, alpha=1.0, **options).double()
    with torch.no_grad():
        for key, parameter in module.named_parameters():
            if parameter is not own.weight:
                parameter.copy_(0.3 * torch.randn_like(parameter) + ("dora_scale" in key))
    kept = {key: value for key, value in module.state_dict().items() if not key.startswith("org_")}
    save_file({f"{name}.{key}": value.contiguous() for key, value in kept.items()}, tmp_path / "a.safetensors")
    (update,) = read_adapter(tmp_path / "a.safetensors", skeleton_of("sd15")).adapter.updates.values()
    weight = own.weight.detach()
    x = torch.randn(2, *((768,) if layer == "linear" else (320, 5, 5)), dtype=torch.float64)
    operation = functional.linear if layer == "linear" else functional.conv2d
    added: torch.Tensor = module.eval()(x)
    wanted = added - operation(x, weight)
    found = operation(x, update.delta(weight.float()).double())
    assert (found - wanted).norm() <= 1e-6 * wanted.norm() + 1e-7 * operation(x, weight).norm()
