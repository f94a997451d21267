"""The house condition: what starts an asset by itself, and what holds it back."""

from collections.abc import Iterator

import dagster as dg
import pytest

from llmops_assets.house import on_changed_data, passed_already, recorded

PARTS = dg.StaticPartitionsDefinition(["one", "two"])


class House:
    """An asset with a blocking check, and one downstream of it that the house condition automates."""

    def __init__(self, instance: dg.DagsterInstance, parts: dg.PartitionsDefinition[str] | None) -> None:
        self._instance = instance
        self._cursor: dg.AssetDaemonCursor | None = None
        self.version, self.sound = "1", True

        @dg.asset(partitions_def=parts)
        def upstream() -> dg.MaterializeResult[None]:
            return dg.MaterializeResult(data_version=dg.DataVersion(self.version))

        @dg.asset_check(asset=upstream, partitions_def=parts, blocking=True)
        def is_sound() -> dg.AssetCheckResult:
            return dg.AssetCheckResult(passed=self.sound)

        @dg.asset(deps=[upstream], automation_condition=on_changed_data())
        def downstream() -> None: ...

        self._upstream, self._check = upstream, is_sound
        self._definitions = dg.Definitions(assets=[upstream, downstream], asset_checks=[is_sound])
        for part in PARTS.get_partition_keys() if parts else [None]:
            self.build(part)
        dg.materialize([downstream, upstream.to_source_asset()], instance=instance)
        self.requests()

    def build(self, part: str | None = None) -> None:
        """Materialise the upstream asset, and look at it."""
        dg.materialize([self._upstream, self._check], instance=self._instance, partition_key=part, raise_on_error=False)

    def requests(self) -> int:
        """Runs that the next look of the automation asks for."""
        result = dg.evaluate_automation_conditions(self._definitions, self._instance, cursor=self._cursor)
        self._cursor = result.cursor
        return result.total_requested


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as instance:
        yield instance


@pytest.fixture(params=[None, PARTS], ids=["unpartitioned", "partitioned"])
def house(instance: dg.DagsterInstance, request: pytest.FixtureRequest) -> House:
    return House(instance, request.param)


@pytest.fixture
def part(house: House, request: pytest.FixtureRequest) -> str | None:
    return "one" if request.node.callspec.id == "partitioned" else None


def test_a_changed_upstream_starts_what_is_below_it_once(house: House, part: str | None) -> None:
    house.version = "2"
    house.build(part)
    assert house.requests() == 1
    assert house.requests() == 0


def test_an_upstream_made_again_without_a_change_starts_nothing(house: House, part: str | None) -> None:
    house.build(part)
    assert house.requests() == 0


def test_what_a_blocking_check_refuses_starts_nothing_until_it_passes(instance: dg.DagsterInstance) -> None:
    house = House(instance, None)
    house.version, house.sound = "2", False
    house.build()
    assert house.requests() == 0
    house.sound = True
    house.build()
    assert house.requests() == 1


@pytest.mark.parametrize(
    ("group", "noun", "said"),
    [
        ("corpus", "chunks", "llmops build (job index_build)"),
        ("evaluation", "cases", "llmops evaluate (job evaluation_score)"),
    ],
)
def test_what_was_never_materialised_is_named_with_what_materialises_it(
    instance: dg.DagsterInstance, group: str, noun: str, said: str
) -> None:
    key = dg.AssetKey(["notes", group, noun])
    with dg.build_asset_context(instance=instance) as context, pytest.raises(dg.Failure) as caught:
        recorded(context, key)
    assert f"notes/{group}/{noun} was never materialised" in str(caught.value.description)
    assert said in str(caught.value.description)


@pytest.mark.parametrize(
    ("passed", "judged", "again"),
    [(True, "these rows", True), (True, "other rows", False), (False, "these rows", False)],
)
def test_only_a_verdict_that_passed_on_exactly_this_is_given_again(passed: bool, judged: str, again: bool) -> None:
    before = dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey("a"),
        check_name="is_sound",
        passed=passed,
        metadata={"judged": dg.TextMetadataValue("these rows"), "recall": dg.FloatMetadataValue(1.0)},
    )
    verdict = passed_already(before, judged)
    assert (verdict is not None) == again
    if verdict is not None:
        assert verdict.passed
        assert verdict.metadata == before.metadata


def test_without_an_earlier_verdict_none_is_given_again() -> None:
    assert passed_already(None, "these rows") is None
