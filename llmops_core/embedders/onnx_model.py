"""A BERT-like ONNX model with its tokenizer: one text, or one pair of texts, in; its first output out.

One at a time on purpose. The int8 models here are quantised dynamically: the scale of every activation is taken over the
whole batch, so a result depends on the texts beside it (measured: cosines down to 0.993 for bge-small, scores off by up to
0.87 for ms-marco-minilm, enough to reorder hits). Alone, a text always gives the same bits, and on two cores it is no slower.
"""

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmops_core.errors import ModelError
from llmops_core.models.tokens import valid_unicode

_ERRORS_ONLY = 3  # onnxruntime's severity: 2 are warnings, 3 errors


class OnnxModel:
    """Runs `model.onnx` of a folder on the CPU, where int8 is at home; threads as onnxruntime chooses them."""

    def __init__(self, folder: Path, max_tokens: int) -> None:
        """Load `model.onnx` and `tokenizer.json`; raises `ModelError` if they are missing or broken."""
        # Else it reports the names, sizes and hashes of models to its makers, from 1.29 on.
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        import onnxruntime
        from tokenizers import Tokenizer

        for name in ("model.onnx", "tokenizer.json"):
            if not (folder / name).is_file():
                raise ModelError(
                    f"{folder} has no {name}. An ONNX model needs model.onnx and tokenizer.json side by side"
                )
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        try:
            self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            self._session = onnxruntime.InferenceSession(
                str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # both libraries raise bare and undocumented exceptions
            raise ModelError(f"{folder} cannot be loaded as an ONNX model: {type(error).__name__}: {error}") from error
        self._tokenizer.enable_truncation(max_tokens)
        self._tokenizer.no_padding()
        self._inputs = [str(node.name) for node in self._session.get_inputs()]
        self.output_size = self._session.get_outputs()[0].shape[-1]
        self._lock = threading.Lock()

    def run(self, text: str, pair: str | None = None) -> NDArray[np.float32]:
        """The model's first output for one text or pair, without the batch axis; the longer of a pair is cut first."""
        encoded = self._tokenizer.encode(valid_unicode(text), None if pair is None else valid_unicode(pair))
        given = {
            "input_ids": encoded.ids,
            "attention_mask": encoded.attention_mask,
            "token_type_ids": encoded.type_ids,
        }
        feed: dict[str, Any] = {name: np.array([given[name]], dtype=np.int64) for name in self._inputs}
        with self._lock:
            output = self._session.run(None, feed)[0]
        result: NDArray[np.float32] = np.asarray(output[0], dtype=np.float32)
        return result
