"""What the Dagster UI does, through the webserver's GraphQL."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import requests

from integrations_dagster_tests.live.stack import wait_for

LOCATION = {"repositoryName": "__repository__", "repositoryLocationName": "integrations"}
ENDED = ("SUCCESS", "FAILURE", "CANCELED")

LAUNCH = """mutation Launch($params: ExecutionParams!) { launchRun(executionParams: $params) { __typename
  ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
  ... on RunConfigValidationInvalid { errors { message } } } }"""
RUN = """query Run($id: ID!) { runOrError(runId: $id) { __typename ... on Run { runId jobName status
  tags { key value } assetSelection { path } startTime endTime stepStats { stepKey status startTime endTime } } } }"""
EVENTS = """query Events($id: ID!, $after: String) { runOrError(runId: $id) { ... on Run {
  eventConnection(afterCursor: $after, limit: 1000) { cursor hasMore
    events { __typename ... on MessageEvent { message stepKey level eventType }
      ... on ExecutionStepFailureEvent { failureMetadata { description } error { message } } } } } } }"""
RUNS = """query Runs($filter: RunsFilter) { runsOrError(filter: $filter, limit: 100) { ... on Runs { results {
  runId jobName status tags { key value } } } } }"""
ENTRIES = """metadataEntries { label __typename ... on IntMetadataEntry { intRepr } ... on FloatMetadataEntry {
  floatValue } ... on TextMetadataEntry { text } ... on MarkdownMetadataEntry { mdStr } ... on TableMetadataEntry {
  table { records } } ... on TableSchemaMetadataEntry { schema { columns { name type } } } }"""
MATERIALIZATIONS = f"""query Asset($key: AssetKeyInput!, $limit: Int) {{ assetOrError(assetKey: $key) {{ ... on Asset {{
  assetMaterializations(limit: $limit) {{ runId partition timestamp {ENTRIES} }} }} }} }}"""
OBSERVATIONS = MATERIALIZATIONS.replace("assetMaterializations", "assetObservations")
START_SCHEDULE = """mutation Start($selector: ScheduleSelector!) { startSchedule(scheduleSelector: $selector) {
  __typename ... on ScheduleStateResult { scheduleState { id status } } ... on PythonError { message } } }"""
STOP_SCHEDULE = """mutation Stop($id: String!) { stopRunningSchedule(id: $id) { __typename
  ... on ScheduleStateResult { scheduleState { status } } ... on PythonError { message } } }"""
SCHEDULE = """query Schedule($selector: ScheduleSelector!) { scheduleOrError(scheduleSelector: $selector) {
  ... on Schedule { scheduleState { id status ticks(limit: 50) { tickId status skipReason runIds timestamp
    error { message } logEvents { events { message level } } } } } } }"""
START_SENSOR = """mutation Start($selector: SensorSelector!) { startSensor(sensorSelector: $selector) { __typename
  ... on Sensor { sensorState { id status } } ... on PythonError { message } } }"""
SENSOR = SCHEDULE.replace("schedule", "sensor").replace("Schedule", "Sensor")
BACKFILL = """mutation Backfill($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
  __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
BACKFILL_STATUS = """query Backfill($id: String!) { partitionBackfillOrError(backfillId: $id) { __typename
  ... on PartitionBackfill { status error { message } runs { runId status } } } }"""
LOADED = """{ workspaceOrError { __typename ... on Workspace { locationEntries { name loadStatus
  locationOrLoadError { __typename ... on PythonError { message } } } } } }"""


@dataclass
class Run:
    """A run as the UI shows it.

    Attributes:
        tags: By key.
        steps: (start, end) by step key, in seconds since the epoch; of steps that ended.
    """

    id: str
    job: str
    status: str
    tags: Mapping[str, str]
    steps: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass
class AssetEvent:
    """A materialization or an observation of an asset.

    Attributes:
        metadata: Plain values by label; of a table its records.
    """

    run_id: str
    partition: str | None
    metadata: Mapping[str, Any]


class Ui:
    """A webserver.

    Args:
        url: Its root, without a trailing slash.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, query: str, **variables: Any) -> Any:
        """Send a query or a mutation; returns the value of its one field.

        Raises:
            AssertionError: The webserver did not understand it.
        """
        answer = requests.post(f"{self.url}/graphql", json={"query": query, "variables": variables}, timeout=60)
        body = answer.json()
        assert answer.status_code == 200, body
        assert "errors" not in body, body["errors"]
        (value,) = body["data"].values()
        return value

    def loaded(self) -> bool:
        """Whether the code location is loaded.

        Raises:
            AssertionError: It does not load.
        """
        try:
            entries = self.ask(LOADED)["locationEntries"]
        except (requests.ConnectionError, requests.Timeout):
            return False
        for entry in entries:
            found = entry["locationOrLoadError"] or {}
            assert found.get("__typename") != "PythonError", found["message"]
        return bool(entries) and all(
            entry["loadStatus"] == "LOADED" and entry["locationOrLoadError"] for entry in entries
        )

    def launch(self, job: str, *assets: str, tags: Mapping[str, str] | None = None) -> str:
        """Launch a run of a job, for some assets or for all of it; returns the run's id."""
        selector = {**LOCATION, "jobName": job}
        params: dict[str, Any] = {"selector": selector, "mode": "default", "runConfigData": "{}"}
        if assets:
            params["selector"] = {**selector, "assetSelection": [{"path": [name]} for name in assets]}
        if tags:
            params["executionMetadata"] = {"tags": [{"key": k, "value": v} for k, v in tags.items()]}
        answer = self.ask(LAUNCH, params=params)
        assert answer["__typename"] == "LaunchRunSuccess", answer
        return str(answer["run"]["runId"])

    def materialize(self, *assets: str, tags: Mapping[str, str] | None = None) -> str:
        """What the button "Materialize selected" does; returns the run's id."""
        return self.launch("__ASSET_JOB", *assets, tags=tags)

    def run(self, run_id: str) -> Run:
        found = self.ask(RUN, id=run_id)
        assert found["__typename"] == "Run", found
        steps = {s["stepKey"]: (s["startTime"], s["endTime"]) for s in found["stepStats"] if s["endTime"]}
        return Run(run_id, found["jobName"], found["status"], _tags(found), steps)

    def runs(self, **filters: Any) -> list[Run]:
        """Runs, the newest first; `filters` are those of GraphQL's RunsFilter."""
        found = self.ask(RUNS, filter=filters)["results"]
        return [Run(run["runId"], run["jobName"], run["status"], _tags(run)) for run in found]

    def ended(self, run_id: str, timeout: float = 240) -> Run:
        """Wait for the end of a run, whatever it is."""

        def look() -> Run | None:
            run = self.run(run_id)
            return run if run.status in ENDED else None

        return wait_for(f"end of run {run_id}", look, timeout)

    def succeeded(self, run_id: str, timeout: float = 240) -> Run:
        """Wait for the end of a run, which must be a good one."""
        run = self.ended(run_id, timeout)
        assert run.status == "SUCCESS", f"{run}\n{self.trouble(run_id)}"
        return run

    def events(self, run_id: str) -> list[dict[str, Any]]:
        """The event log of a run: __typename, message, stepKey, level."""
        events: list[dict[str, Any]] = []
        after = None
        while True:
            page = self.ask(EVENTS, id=run_id, after=after)["eventConnection"]
            events += page["events"]
            after = page["cursor"]
            if not page["hasMore"]:
                return events

    def trouble(self, run_id: str) -> str:
        """What a run's log says of failures, for a failed assertion."""
        bad = [e for e in self.events(run_id) if "Failure" in e["__typename"] or e["level"] in ("ERROR", "CRITICAL")]
        return "\n".join(json.dumps(event, ensure_ascii=False) for event in bad)

    def materializations(self, asset: str, limit: int = 1) -> list[AssetEvent]:
        """The newest materializations of an asset, newest first."""
        found = self.ask(MATERIALIZATIONS, key={"path": [asset]}, limit=limit)
        return [_asset_event(event) for event in found["assetMaterializations"]]

    def observations(self, asset: str, limit: int = 1) -> list[AssetEvent]:
        """The newest observations of an asset, newest first."""
        found = self.ask(OBSERVATIONS, key={"path": [asset]}, limit=limit)
        return [_asset_event(event) for event in found["assetObservations"]]

    def start_schedule(self, name: str) -> str:
        """Start a schedule; returns the id that stops it."""
        answer = self.ask(START_SCHEDULE, selector={**LOCATION, "scheduleName": name})
        assert answer["__typename"] == "ScheduleStateResult", answer
        assert answer["scheduleState"]["status"] == "RUNNING", answer
        return str(answer["scheduleState"]["id"])

    def stop_schedule(self, id_: str) -> None:
        answer = self.ask(STOP_SCHEDULE, id=id_)
        assert answer["scheduleState"]["status"] == "STOPPED", answer

    def start_sensor(self, name: str) -> None:
        answer = self.ask(START_SENSOR, selector={**LOCATION, "sensorName": name})
        assert answer["__typename"] == "Sensor", answer
        assert answer["sensorState"]["status"] == "RUNNING", answer

    def schedule_ticks(self, name: str) -> list[dict[str, Any]]:
        """Ticks of a schedule, newest first: status, skipReason, runIds, error, logEvents."""
        ticks: list[dict[str, Any]] = self.ask(SCHEDULE, selector={**LOCATION, "scheduleName": name})["scheduleState"][
            "ticks"
        ]
        return ticks

    def sensor_ticks(self, name: str) -> list[dict[str, Any]]:
        """Ticks of a sensor, newest first, as of a schedule."""
        ticks: list[dict[str, Any]] = self.ask(SENSOR, selector={**LOCATION, "sensorName": name})["sensorState"][
            "ticks"
        ]
        return ticks

    def backfill(self, assets: Sequence[str], partitions: Sequence[str]) -> str:
        """Launch a backfill as the UI does; returns its id."""
        params = {"assetSelection": [{"path": [name]} for name in assets], "partitionNames": list(partitions)}
        answer = self.ask(BACKFILL, params=params)
        assert answer["__typename"] == "LaunchBackfillSuccess", answer
        return str(answer["backfillId"])

    def backfilled(self, backfill_id: str, timeout: float = 300) -> list[Run]:
        """Wait for the end of a backfill, which must be a good one; returns its runs."""

        def look() -> dict[str, Any] | None:
            found: dict[str, Any] = self.ask(BACKFILL_STATUS, id=backfill_id)
            assert found["__typename"] == "PartitionBackfill", found
            return found if found["status"] not in ("REQUESTED", "CANCELING", "FAILING") else None

        found = wait_for(f"end of backfill {backfill_id}", look, timeout)
        assert found["status"] == "COMPLETED_SUCCESS", found
        return [self.run(run["runId"]) for run in found["runs"]]


def _tags(run: Mapping[str, Any]) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in run["tags"]}


def _asset_event(event: Mapping[str, Any]) -> AssetEvent:
    return AssetEvent(
        event["runId"], event["partition"], {entry["label"]: _value(entry) for entry in event["metadataEntries"]}
    )


def _value(entry: Mapping[str, Any]) -> Any:
    kind = entry["__typename"]
    if kind == "IntMetadataEntry":
        return int(entry["intRepr"])
    if kind == "FloatMetadataEntry":
        return entry["floatValue"]
    if kind == "TableMetadataEntry":
        return [json.loads(record) for record in entry["table"]["records"]]
    if kind == "TableSchemaMetadataEntry":
        return {column["name"]: column["type"] for column in entry["schema"]["columns"]}
    return entry.get("text") or entry.get("mdStr")
