from pathlib import Path
from typing import Any

import pytest

from llmops_core.errors import ModelError
from llmops_core.models.gguf_conversion import convert_gguf
from llmops_core.models.record import read_record, sha256_of


@pytest.fixture(scope="module")
def folder(models: Path) -> Path:
    return models / "smollm2-135m-instruct"


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


@pytest.mark.models
def test_the_weights_are_those_that_transformers_writes(folder: Path) -> None:
    """The hash is that of `save_pretrained` of transformers 5.23.0 after loading the same GGUF file in bfloat16."""
    expected = "7ef915c9bf9d94d8d70211970476878352a5b95855c589ae987916d7a455242b"
    assert sha256_of(folder / "model.safetensors") == expected
    record = read_record(folder)
    assert record is not None
    assert record.files["model.safetensors"].sha256 == expected
    assert not list(folder.glob("*.gguf"))


@pytest.mark.models
def test_the_chat_template_is_chatml_and_ends_turns_with_an_end_token(folder: Path, tokenizer: Any) -> None:
    from transformers import GenerationConfig

    text = tokenizer.apply_chat_template(
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}],
        tokenize=False,
        add_generation_prompt=True,
    )
    assert text == "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") == tokenizer.eos_token_id
    assert GenerationConfig.from_pretrained(folder).eos_token_id == tokenizer.eos_token_id
    assert tokenizer.model_max_length == 8192


@pytest.mark.models
def test_digits_stand_alone_and_spaces_before_them_stay_together(tokenizer: Any) -> None:
    assert tokenizer.tokenize("In  2024\n    x") == ["In", "ĠĠ", "2", "0", "2", "4", "ĊĠĠĠ", "Ġx"]


@pytest.mark.models
@pytest.mark.parametrize("text", ["naïve 日本 ½", "def f(x):\n    return x + 10", " <|im_end|> 😀\t\r\n"])
def test_every_text_survives_the_tokenizer(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


@pytest.mark.models
def test_the_model_answers_and_stops_by_itself(folder: Path, tokenizer: Any) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, local_files_only=True)
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    inputs = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    answer = model.generate(**inputs, max_new_tokens=32, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert tokenizer.decode(answer) == "The capital of France is Paris.<|im_end|>"


def test_a_file_that_is_no_gguf_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"no such thing" * 100)
    with pytest.raises(ModelError, match="cannot be read as a GGUF file"):
        convert_gguf(file, tmp_path)


def test_a_gguf_of_another_architecture_is_an_error(tmp_path: Path) -> None:
    import numpy as np
    from gguf import GGUFWriter

    file = tmp_path / "model.gguf"
    writer = GGUFWriter(file, "gpt2")
    writer.add_tensor("x.weight", np.zeros((2, 2), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ModelError, match=r"is of architecture and tokenizer \('gpt2', None, None\)"):
        convert_gguf(file, tmp_path)
