"""Ways to embed faster beside the way it is done: passages a CPU second, and what retrieval is worth then.

`make bench` prints a row for each. Texts and labelled questions are feedbackqa's (WHO), from the data folder beside the
project; without it this is skipped. Variants that need packages which the project does not (`onnx` with `onnxscript`,
`openvino`, `nncf`) run where they are installed. CPU seconds, on a machine that does nothing else: threads that wait for each
other spin, and on a busy one they wait for long.
"""

import importlib
import importlib.util
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from llmops_core.embedders.embedder import l2_normalised
from llmops_core.embedders.load import load_embedder
from llmops_core.models.device import compute_dtype
from llmops_core.settings import load_settings
from tests.benchmark.conftest import Report

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "feedbackqa"
TOKENS = 256
# Emulated bfloat16 does one or two texts a second: enough to say so.
FEW = 24
K = 5
INPUTS = ["input_ids", "attention_mask", "token_type_ids"]

Encode = Callable[[Sequence[str]], NDArray[np.float32]]

pytestmark = pytest.mark.skipif(not DATA.exists(), reason=f"{DATA} is not here")


def test_ways_to_embed_faster(models: Path, report: Report, tmp_path: Path) -> None:
    passages = _rows("corpus.WHO.jsonl")
    questions = _rows("queries.WHO.test.jsonl")
    texts = [f"{row['page_title']}\n{row['section']}\n{row['text']}" for row in passages]
    asked = [row["question"] for row in questions]
    found: dict[str, tuple[float, float | None]] = {}
    for name, encode, whole in _variants(models, tmp_path):
        some = texts if whole else texts[:FEW]
        encode(texts[:2])
        before = time.process_time()
        vectors = encode(some)
        rate = len(some) / (time.process_time() - before)
        found[name] = (rate, _recall(vectors, encode(asked), passages, questions) if whole else None)
        print(f"  {name}: {rate:.1f} passages a CPU second, recall@{K} {found[name][1]}")
    own_rate, own_recall = found["as it is"]
    for name, (rate, recall) in found.items():
        worth = f", recall@{K} {recall:.3f}" if recall is not None else ""
        beside = f"{own_rate:.1f}, recall@{K} {own_recall:.3f} as it is"
        report(f"MiniLM, passages a CPU second: {name}", f"{rate:.1f}{worth}", beside, rate / own_rate, "-")


def _variants(models: Path, folder: Path) -> Iterator[tuple[str, Encode, bool]]:
    """Name, what embeds, and whether it is fast enough for all texts."""
    import torch

    own = load_embedder(load_settings(home=models.parent, device="cpu"), "minilm")
    yield "as it is", own.embed_documents, True
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield "one thread", own.embed_documents, True
    torch.set_num_threads(threads)
    other = torch.bfloat16 if compute_dtype("cpu") == torch.float32 else torch.float32
    for name, dtype, batch, in_length_order, whole in (
        ("batches of 1", compute_dtype("cpu"), 1, True, True),
        ("batches of 32", compute_dtype("cpu"), 32, True, True),
        ("not sorted by length", compute_dtype("cpu"), 8, False, True),
        (str(other).removeprefix("torch."), other, 8, True, other == torch.float32),
    ):
        yield name, _torch(models, dtype, batch, in_length_order=in_length_order), whole
    yield "bge-small instead, ONNX int8, one by one", _bge(models), True
    if importlib.util.find_spec("onnx"):
        for name, quantised in (("ONNX", False), ("ONNX, int8", True)):
            yield name, _onnx(models, folder, quantised=quantised), True
    if importlib.util.find_spec("openvino"):
        yield "OpenVINO", _openvino(models, quantised=False), True
        if importlib.util.find_spec("nncf"):
            yield "OpenVINO, int8 weights", _openvino(models, quantised=True), True


def _torch(models: Path, dtype: Any, batch: int, *, in_length_order: bool) -> Encode:
    model = _sentence_transformer(models).to(dtype)

    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        # encode itself sorts what it is given.
        parts = [texts] if in_length_order else [texts[at : at + batch] for at in range(0, len(texts), batch)]
        vectors = [model.encode(list(part), batch_size=batch, convert_to_tensor=True).float().numpy() for part in parts]
        return l2_normalised(np.concatenate(vectors))

    return encode


def _bge(models: Path) -> Encode:
    return load_embedder(load_settings(home=models.parent, device="cpu"), "bge-small").embed_documents


def _onnx(models: Path, folder: Path, *, quantised: bool) -> Encode:
    import onnxruntime
    import torch

    model, file = _sentence_transformer(models).float(), str(folder / f"{quantised}.onnx")

    class States(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.transformer = model[0].auto_model.eval()

        def forward(self, *given: torch.Tensor) -> torch.Tensor:
            states: torch.Tensor = self.transformer(**dict(zip(INPUTS, given, strict=True))).last_hidden_state
            return states

    shape = {0: "texts", 1: "tokens"}
    torch.onnx.export(
        States(),
        tuple(_example().values()),
        file,
        input_names=INPUTS,
        output_names=["states"],
        dynamic_axes=dict.fromkeys((*INPUTS, "states"), shape),
        dynamo=False,
    )
    if quantised:
        quantization = importlib.import_module("onnxruntime.quantization")
        quantization.quantize_dynamic(file, file, weight_type=quantization.QuantType.QInt8)
    session = onnxruntime.InferenceSession(file)
    return _one_by_one(model.tokenizer, lambda given: session.run(["states"], given)[0][0])


def _openvino(models: Path, *, quantised: bool) -> Encode:
    openvino = importlib.import_module("openvino")
    model = _sentence_transformer(models).float()
    converted = openvino.convert_model(model[0].auto_model.eval(), example_input=_example())
    if quantised:
        nncf = importlib.import_module("nncf")
        converted = nncf.compress_weights(converted, mode=nncf.CompressWeightsMode.INT8_SYM)
    compiled = openvino.compile_model(converted, "CPU", {"INFERENCE_NUM_THREADS": os.cpu_count()})
    return _one_by_one(model.tokenizer, lambda given: compiled(given)[0][0])


def _example() -> dict[str, Any]:
    import torch

    return {name: torch.ones(1, 8, dtype=torch.int64) for name in INPUTS}


def _one_by_one(tokenizer: Any, states: Callable[[dict[str, Any]], NDArray[np.float32]]) -> Encode:
    """Embed each text alone, by the mean of its tokens' states of shape (tokens, dimension)."""

    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        given = (dict(tokenizer(text, truncation=True, max_length=TOKENS, return_tensors="np")) for text in texts)
        return l2_normalised(np.stack([states(one).mean(axis=0) for one in given]).astype(np.float32))

    return encode


def _sentence_transformer(models: Path) -> Any:
    import torch
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(
        str(models / "minilm"), device="cpu", local_files_only=True, model_kwargs={"dtype": torch.bfloat16}
    )
    model.max_seq_length = TOKENS
    return model


def _rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


def _recall(
    vectors: NDArray[np.float32],
    asked: NDArray[np.float32],
    passages: Sequence[dict[str, Any]],
    questions: Sequence[dict[str, Any]],
) -> float:
    """Share of the questions' gold passages among the nearest K."""
    nearest = np.argsort(-(asked @ vectors.T), axis=1)[:, :K]
    shares = []
    for places, question in zip(nearest, questions, strict=True):
        gold = set(question["gold_doc_ids"])
        shares.append(len(gold & {passages[place]["doc_id"] for place in places}) / len(gold))
    return float(np.mean(shares))
