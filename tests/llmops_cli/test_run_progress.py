"""What is shown of a run in which a step does not work at once."""

import uuid

import dagster as dg
import pytest

from llmops_cli.run_progress import RunProgress


def test_a_step_that_is_tried_again_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    @dg.op(name="notes__corpus__documents", retry_policy=dg.RetryPolicy(max_retries=1))
    def documents(context: dg.OpExecutionContext) -> None:
        if context.retry_number == 0:
            raise ValueError("the catalog is locked [/by another]")
        context.log.info("Read again")

    @dg.job
    def build() -> None:
        documents()

    run_id = str(uuid.uuid4())
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_event_listener(run_id, RunProgress("notes"))
        build.execute_in_process(instance=instance, run_id=run_id)
    lines = [line.strip() for line in capsys.readouterr().err.splitlines()]
    tried = "corpus/documents is tried again after: ValueError: the catalog is locked [/by another]"
    assert lines.index(tried) < lines.index("Read again")
