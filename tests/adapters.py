"""LoRA adapters for tests."""

from pathlib import Path
from typing import Any


def make_adapter(generator: Path, folder: Path, rank: int, seed: int) -> Path:
    """Save an adapter whose random weights change what the model says."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(generator, dtype=torch.bfloat16)
    config = LoraConfig(r=rank, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    torch.manual_seed(seed)
    model: Any = get_peft_model(base, config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=1.0)
    model.save_pretrained(folder)
    return folder
