import os
import subprocess
import sys
from pathlib import Path


def test_nothing_is_kept_or_sent_about_the_models_in_use(models: Path, tmp_path: Path) -> None:
    # Its makers' own tests and CI count as no use, so here is neither.
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "ORT_RUNNING_UNIT_TESTS")}
    script = (
        "from pathlib import Path; from llmops_core.embedders.onnx_model import OnnxModel;"
        f" print(OnnxModel(Path({str(models / 'bge-small')!r}), 32).run('a text').shape)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**environment, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("(")
    assert list(tmp_path.rglob("*onnxruntime*")) == []
