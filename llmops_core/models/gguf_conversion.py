"""A Llama-architecture GGUF file made into a transformers folder: bf16 safetensors, tokenizer, chat template.

transformers can read a GGUF file itself, but takes four times as long, has to be talked out of its quantiser before it
can save, and does not know the `smollm` way to split digits. The weights written here are byte for byte those that
transformers 5.23 writes (tests hold their hash); whatever this reader does not know is an error, never a guess.
"""

import json
from pathlib import Path
from typing import Any

from llmops_core.errors import ModelError

_ARCHITECTURE = "llama"
_TENSORS = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_CONTROL_TOKEN = 3  # llama.cpp's LLAMA_TOKEN_TYPE_CONTROL


def convert_gguf(file: Path, folder: Path) -> None:
    """Write `model.safetensors` (bf16, tied embeddings), the configurations and the tokenizer of `file` to `folder`.

    Raises `ModelError` if the file is no GGUF or is of a kind that this does not know.
    """
    from gguf import GGUFReader

    try:
        reader = GGUFReader(file)
    except (ValueError, OSError, KeyError) as error:
        raise ModelError(f"{file} cannot be read as a GGUF file: {error}") from error
    meta = {name: field.contents() for name, field in reader.fields.items()}
    known = (meta.get("general.architecture"), meta.get("tokenizer.ggml.model"), meta.get("tokenizer.ggml.pre"))
    if known != (_ARCHITECTURE, "gpt2", "smollm"):
        raise ModelError(f"{file} is of architecture and tokenizer {known}; only ('llama', 'gpt2', 'smollm') is known")
    _write_weights(reader, meta, folder / "model.safetensors")
    _write_configuration(meta, folder)
    _write_tokenizer(meta, folder)


def _write_weights(reader: Any, meta: dict[str, Any], target: Path) -> None:
    import numpy as np
    import torch
    from gguf import dequantize
    from safetensors.torch import save_file

    heads = {"attn_q": meta["llama.attention.head_count"], "attn_k": meta["llama.attention.head_count_kv"]}
    tensors = {}
    for tensor in reader.tensors:
        kind = tensor.name.split(".")[-2]
        weight = torch.from_numpy(np.array(dequantize(tensor.data, tensor.tensor_type)))
        if kind in heads:
            # llama.cpp keeps the two halves of each head interleaved for its rotary embedding; transformers side by side.
            halves = weight.reshape(heads[kind], weight.shape[0] // heads[kind] // 2, 2, -1)
            weight = halves.swapaxes(1, 2).reshape(weight.shape)
        tensors[_tensor_name(tensor.name)] = weight.to(torch.bfloat16).contiguous()
    save_file(tensors, target, metadata={"format": "pt"})
    target.chmod(0o644)  # safetensors makes it readable to its owner alone; a server may run as somebody else


def _tensor_name(name: str) -> str:
    """Name a tensor as transformers does: `blk.3.attn_q.weight` is `model.layers.3.self_attn.q_proj.weight`."""
    *block, kind, _ = name.split(".")
    if kind not in _TENSORS:
        raise ModelError(f"The GGUF file holds a tensor '{name}' that the conversion does not know")
    return f"model.layers.{block[1]}.{_TENSORS[kind]}.weight" if block else f"{_TENSORS[kind]}.weight"


def _write_configuration(meta: dict[str, Any], folder: Path) -> None:
    hidden, heads = meta["llama.embedding_length"], meta["llama.attention.head_count"]
    special = {
        "bos_token_id": meta["tokenizer.ggml.bos_token_id"],
        "eos_token_id": meta["tokenizer.ggml.eos_token_id"],
        "pad_token_id": meta["tokenizer.ggml.padding_token_id"],
    }
    _write_json(
        folder / "config.json",
        {
            **special,
            "architectures": ["LlamaForCausalLM"],
            "attention_bias": False,
            "attention_dropout": 0.0,
            "dtype": "bfloat16",
            "head_dim": hidden // heads,
            "hidden_act": "silu",
            "hidden_size": hidden,
            "intermediate_size": meta["llama.feed_forward_length"],
            "max_position_embeddings": meta["llama.context_length"],
            "mlp_bias": False,
            "model_type": "llama",
            "num_attention_heads": heads,
            "num_hidden_layers": meta["llama.block_count"],
            "num_key_value_heads": meta["llama.attention.head_count_kv"],
            "rms_norm_eps": meta["llama.attention.layer_norm_rms_epsilon"],
            "rope_parameters": {"rope_theta": meta["llama.rope.freq_base"], "rope_type": "default"},
            "tie_word_embeddings": True,
            "use_cache": True,
            "vocab_size": meta["llama.vocab_size"],
        },
    )
    _write_json(folder / "generation_config.json", special)


def _write_tokenizer(meta: dict[str, Any], folder: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens: list[str] = meta["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in meta["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={token: n for n, token in enumerate(tokens)}, merges=merges))
    # What `smollm` means in llama.cpp (llama-vocab.cpp): every digit stands alone, then GPT-2's own pattern.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    kinds = zip(tokens, meta["tokenizer.ggml.token_type"], strict=True)
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t, kind in kinds if kind == _CONTROL_TOKEN])
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(
        folder / "tokenizer_config.json",
        {
            "bos_token": tokens[meta["tokenizer.ggml.bos_token_id"]],
            "clean_up_tokenization_spaces": False,
            "eos_token": tokens[meta["tokenizer.ggml.eos_token_id"]],
            "model_max_length": meta["llama.context_length"],
            "pad_token": tokens[meta["tokenizer.ggml.padding_token_id"]],
            "tokenizer_class": "PreTrainedTokenizerFast",
            "unk_token": tokens[meta["tokenizer.ggml.unknown_token_id"]],
        },
    )
    (folder / "chat_template.jinja").write_text(meta["tokenizer.chat_template"], encoding="utf-8")


def _write_json(file: Path, value: dict[str, Any]) -> None:
    file.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
