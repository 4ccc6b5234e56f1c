"""What a key may say, and what is said of a mistake: its place, the component, the key, and what to do."""

from __future__ import annotations

import pytest

from integrations_dagster.components import Destination, Model, Sync, Warehouse
from integrations_dagster.components.attributes import YamlComponent
from integrations_dagster.destinations.registry import KINDS
from integrations_dagster.keys import parse_duration
from integrations_dagster.sync.spec import FieldRule
from integrations_dagster.vocabulary import Misconfigured

TYPES: dict[str, type[YamlComponent]] = {c.__name__: c for c in (Warehouse, Model, Destination, Sync)}
BASE = {
    "Warehouse": "name: wh\nkind: duckdb\npath: a.duckdb\n",
    "Model": "sql: people.sql\nprimary_key: id\n",
    "Destination": "name: hook\nkind: webhook\n",
    "Sync": "name: s1\nmodel: people\ndestination: hook\nobject: people\nmode: mirror\nfields:\n  name: full_name\n",
}


def wrong(type_: str, text: str) -> str:
    with pytest.raises(Misconfigured) as caught:
        TYPES[type_].resolve_from_yaml(text)
    return str(caught.value)


@pytest.mark.parametrize("type_", TYPES)
def test_the_smallest_is_enough(type_: str) -> None:
    component = TYPES[type_].resolve_from_yaml(BASE[type_])
    assert component.identity in {"wh", "people", "hook", "s1"}
    assert component.place == "<string>:1"


@pytest.mark.parametrize(
    ("type_", "line", "words"),
    [
        ("Warehouse", "nam: x", 'nam is no key here. Did you mean "name"? Known keys: name, kind, path, url.'),
        ("Warehouse", "url: {env: X}", "url has no meaning for the kind duckdb"),
        ("Model", "primary_keys: a", 'Did you mean "primary_key"?'),
        ("Model", "partitions: {hourly: {start: '2026-01-01'}}", "partitions.hourly is not built yet. Built: daily."),
        ("Model", "partitions: {daily: {start: 2026-13-01}}", "partitions.daily.start is wrong"),
        ("Model", "partitions: {daily: {start: 2026-02-01, end: 2026-02-01}}", "`end` is excluded"),
        ("Model", "partitions: daily", "partitions takes a mapping of the keys daily"),
        ("Model", "name: two words", "name is wrong: string should match pattern"),
        ("Destination", "timeout: 0", "timeout is wrong: input should be greater than 0"),
        ("Destination", "in_flight: 0", "in_flight is wrong: input should be greater than or equal to 1"),
        ("Destination", "quota: 5", "quota is wrong: input should be a valid list"),
        ("Destination", "quota: [{requests: 100}]", "quota.0.per is missing"),
        ("Destination", "quota: [{requests: 0, per: 10s}]", "quota.0.requests is wrong"),
        ("Destination", "quota: [{requests: 9, per: 0}]", "quota.0.per is wrong: input should be greater than 0"),
        (
            "Destination",
            "quota: [{requests: 9, per: a day}]",
            'quota.0.per takes seconds, or a number with a unit, as "30',
        ),
        ("Destination", "quota: [{requests: 9, window: 10s}]", "quota.0.window is no key here"),
        ("Destination", "concurrency: 0", "concurrency is wrong: input should be greater than or equal to 1"),
        ("Destination", "retry: {attempts: 0}", "retry.attempts is wrong"),
        ("Destination", "retry: {base: 20}", "retry has a cap (15 s) below base (20 s)"),
        ("Destination", "retry: {base: true}", "retry.base takes seconds"),
        ("Destination", "request_log: {days: -1}", "request_log.days is wrong"),
        (
            "Destination",
            "request_log: {bodies: some}",
            "request_log.bodies is wrong: input should be 'failed', 'all' or",
        ),
        ("Destination", "targets: {}", "targets is wrong"),
        ("Destination", "targets: {prod: {oauth: x}}", 'targets.prod.oauth is no key here. Did you mean "auth"?'),
        ("Destination", "targets: {prod: {schedules: true}}", "targets.prod lacks base_url"),
        ("Destination", "targets: {prod: {base_url: 'ftp://x'}}", "begins with http:// or https://"),
        ("Destination", "targets: {prod: {base_url: {env: A, vra: B}}}", "vra is no key here"),
        ("Destination", "targets: {prod: {secret: {env: 'A B'}}}", "targets.prod.secret.env is wrong"),
        ("Destination", "targets: {sandbox: {base_url: 'http://x'}}", "`sandbox: {sandbox: true}`"),
        ("Destination", "targets: {a: {sandbox: true, secret: {env: A}}}", "has its own secret. Leave that out."),
        (
            "Destination",
            "targets: {a: {base_url: 'http://x', token: {env: A}, auth: {kind: bearer, token: {env: A}}}}",
            "targets.a has both token and auth",
        ),
        ("Sync", "shards: 33", "shards is wrong: input should be less than or equal to 32"),
        ("Sync", "shards: many", "shards is wrong: input should be a valid integer"),
        ("Sync", "batch: {rows: 0}", "batch.rows is wrong: input should be greater than or equal to 1"),
        ("Sync", "batch: {bytes: 0}", "batch.bytes is wrong: input should be greater than or equal to 1"),
        ("Sync", "batch: {row_bytes: 1kb}", "batch.row_bytes is wrong: input should be a valid integer"),
        ("Sync", "rejected: {max_attempts: 0}", "rejected.max_attempts is wrong"),
        ("Sync", "rejected: {wait: soon}", 'rejected.wait takes seconds, or a number with a unit, as "30s"'),
        ("Sync", "rejected: {wait: -5}", "rejected.wait takes seconds"),
        ("Sync", "rejected: {wait: 2d}", "rejected has a longest_wait (86400 s) below wait (172800 s)"),
        ("Sync", "schedule: every day", "schedule is no cron schedule. Write five parts"),
        ("Sync", "schedule: '* * * * * *'", "schedule is no cron schedule"),
        ("Sync", "trigger: always", "trigger is wrong: input should be 'model'"),
        ("Sync", "fail_when: {rejected_above: 5}", 'takes a share from 0 to 1, as "5%" or 0.05'),
        ("Sync", "fail_when: {rejected_above: some}", 'takes a share, as "5%" or 0.05'),
        ("Sync", "fail_when: {rejected_above: true}", "takes a share"),
        ("Sync", "fail_when: {rejected_above: nan}", "takes a share from 0 to 1"),
        ("Sync", "fail_when: {invalid_above: 5%}", "fail_when.invalid_above is not built yet. Built: rejected_above."),
        ("Sync", "alerts: {when: {rejected_above: 1%}}", "alerts.slack is missing"),
        ("Sync", "alerts: {slack: '#a', when: {in_doubt_above: 1%}}", "alerts.when.in_doubt_above is not built yet"),
        ("Sync", "alerts: {pagerduty: x}", "alerts.pagerduty is not built yet. Built: slack."),
        ("Sync", "planner: warehouse", "planner is not built yet."),
        ("Sync", "home: cloud", "home is wrong: input should be 'embedded' or 'warehouse'"),
        ("Sync", "nulls: send", "nulls is wrong: input should be 'omit', 'clear' or 'default'"),
        ("Sync", "in_doubt: skip", "in_doubt is wrong: input should be 'hold', 'verify' or 'resend'"),
        ("Sync", "sensitive: [a]", "sensitive is not built yet. Mark the field: {column: NAME, sensitive: true}."),
        ("Sync", "cursor: x", "cursor is not built yet. It is a key of the model."),
        ("Sync", "dedupe_window: 30d", "dedupe_window has no meaning in mode mirror. Leave it out."),
        ("Model", "cursor: {lookback: 3h}", "cursor.column is missing"),
        ("Model", "cursor: {column: at, lookback: soon}", "cursor.lookback takes seconds"),
        ("Sync", "shard: 2", 'Did you mean "shards"?'),
    ],
)
def test_a_mistake_is_named(type_: str, line: str, words: str) -> None:
    text = BASE[type_] + line + "\n"
    message = wrong(type_, text)
    assert words in message
    assert f'{TYPES[type_].word} "' in message
    assert message.startswith(f"<string>:{len(text.splitlines())}: ")


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        (
            "upsrt",
            'mode "upsrt" is no mode. Did you mean "upsert"? Known: insert, update, upsert, mirror, delete, append.',
        ),
        ("delete", "fields have no meaning: mode delete sends no values. Leave them out."),
    ],
)
def test_modes(mode: str, words: str) -> None:
    message = wrong("Sync", BASE["Sync"].replace("mirror", mode))
    assert message.startswith("<string>:")
    assert message.endswith(f': sync "s1": {words}')


@pytest.mark.parametrize("mode", ["insert", "update", "upsert", "mirror", "append"])
def test_only_a_deletion_does_without_fields(mode: str) -> None:
    bare = BASE["Sync"].split("fields:")[0]
    assert wrong("Sync", bare.replace("mirror", mode)) == '<string>:1: sync "s1": fields is missing'
    assert Sync.resolve_from_yaml(bare.replace("mirror", "delete")).mode == "delete"


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("{sql: ''}", "fields.name.sql is wrong: string should have at least 1 character"),
        ("{sql: null}", "fields.name is null"),
        ("{sql: a || b, column: a}", "takes one of `column`, `value` and `sql`"),
        ("{column: a, type: numbr}", 'fields.name.type "numbr" is no type. Did you mean "number"? Known: string, '),
        ("{column: a, type: enum}", "fields.name.type is enum, which needs `values`"),
        ("{column: a, type: enum, values: free}", "fields.name.values takes a list of texts and numbers, or a mapping"),
        ("{column: a, type: enum, values: []}", "fields.name.values takes a list of texts and numbers, or a mapping"),
        ("{column: a, values: [x]}", "fields.name.values has no meaning for a field without a type; it is for enum."),
        (
            "{column: a, type: integer, trim: true}",
            "fields.name.trim has no meaning for type integer; it is for",
        ),
        ("{column: a, type: json, hash: sha256}", "fields.name.hash has no meaning for type json"),
        ("{column: a, hash: md5}", "fields.name.hash is wrong: input should be 'sha256'"),
        ("{column: a, type: string, format: epoch_ms}", "fields.name.format has no meaning for type string"),
        (
            "{column: a, type: date, format: unix}",
            "fields.name.format is wrong: input should be 'iso', ",
        ),
        ("{column: a, type: phone, region: us}", 'fields.name.region "us" is no country. Write two capital letters'),
        ("{column: a, truncate: true}", "fields.name.truncate has no meaning without max_length."),
        ("{column: a, max_length: 0}", "fields.name.max_length is wrong: input should be greater than or equal to 1"),
        ("{column: a, nulls: default}", "fields.name.nulls is default, and there is no `default`."),
        ("{column: a, nulls: clear, default: x}", "fields.name.default is never sent: nulls is clear."),
        (
            "{column: a, nulls: clear, required: true}",
            "fields.name.nulls is clear, and a row in which",
        ),
        ("{column: a, on_error: skip}", "fields.name.on_error is wrong: input should be 'reject' or 'drop'"),
        ("{lookup: owners}", "fields.name has a `lookup` without a `column` whose values are looked up"),
        ("{lookup: [owners], column: a}", "fields.name.lookup takes the name of a lookup, or the keys of one"),
        (
            "{lookup: {sync: a, cache: 1h}, column: a}",
            "fields.name.lookup has both `sync` and `cache`: what another sync has delivered",
        ),
        (
            "{lookup: {nomatch: reject}, column: a}",
            'fields.name.lookup.nomatch is no key here. Did you mean "no_match"?',
        ),
        ("{colum: a}", 'fields.name.colum is no key here. Did you mean "column"?'),
        ("{column: a, value: b}", "fields.name takes one of `column`, `value` and `sql`"),
        ("{}", "fields.name takes one of `column`, `value` and `sql`"),
        ("{value: null}", "fields.name is null"),
        ("{column: a, sensitive: some}", "fields.name.sensitive is wrong: input should be a valid boolean"),
        ("5", "fields.name takes the name of a column, {column: NAME}, {value: CONSTANT} or {sql: EXPRESSION}"),
    ],
)
def test_fields(field: str, words: str) -> None:
    message = wrong("Sync", BASE["Sync"].replace("full_name", field))
    assert message.startswith('<string>:7: sync "s1": ')
    assert words in message


@pytest.mark.parametrize(
    ("type_", "kind", "words"),
    [
        ("Warehouse", "snowflake", 'kind "snowflake" is no kind of warehouse. Known: duckdb, postgres.'),
        ("Warehouse", "duckbd", 'kind "duckbd" is no kind of warehouse. Did you mean "duckdb"?'),
        ("Destination", "klaviyo", f'kind "klaviyo" is not built yet. Built: {", ".join(sorted(KINDS))}.'),
        ("Destination", "hubspto", f'Did you mean "hubspot"? Known: {", ".join(sorted(KINDS))}.'),
        ("Destination", "[a]", "is no kind of destination"),
        ("Destination", "rest", 'It is called "http" here.'),
        ("Destination", "json-rpc", 'It is called "jsonrpc" here.'),
        ("Destination", "wsdl", 'It is called "soap" here.'),
    ],
)
def test_kinds(type_: str, kind: str, words: str) -> None:
    message = wrong(type_, BASE[type_].replace("duckdb\n", f"{kind}\n", 1).replace("webhook", kind))
    assert message.startswith(f'<string>:2: {TYPES[type_].word} "')
    assert words in message


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("# nowhere", "lacks url: {env: NAME}"),
        ("url: {env: URL}\npath: w.duckdb", "path has no meaning for the kind postgres, which takes url: {env: NAME}"),
        ("url: postgresql://me:pw@host/db", "url takes {env: NAME}"),
    ],
)
def test_the_place_of_a_warehouse(place: str, words: str) -> None:
    message = wrong("Warehouse", f"name: wh\nkind: postgres\n{place}\n")
    assert words in message
    assert "pw@" not in message


def test_several_mistakes_are_all_named() -> None:
    message = wrong("Sync", BASE["Sync"].replace("mirror", "upsrt") + "shards: 0\nbatch: {rowz: 1}\n")
    assert [line.split(":")[1] for line in message.splitlines()] == ["5", "9", "8"]


def test_what_is_missing_is_named() -> None:
    message = wrong("Sync", "name: s1\n")
    # Whether fields or a model are missing depends on other keys.
    assert [f"{key} is missing" in message for key in ("destination", "object", "mode")] == [True] * 3


@pytest.mark.parametrize("secret", ["pat-na1-very-secret", '"{{ env.A_TOKEN }}"'])
def test_a_secret_is_never_written_and_never_repeated(secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_TOKEN", "pat-na1-very-secret")
    text = f"name: crm\nkind: hubspot\ntargets:\n  prod:\n    base_url: https://x.example\n    token: {secret}\n"
    with pytest.raises(Misconfigured) as caught:
        Destination.resolve_from_yaml(text)
    assert '<string>:6: destination "crm": targets.prod.token takes {env: NAME}' in str(caught.value)
    error: BaseException | None = caught.value
    while error is not None:
        assert "very-secret" not in repr(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def test_a_password_in_a_url_is_refused_and_not_repeated() -> None:
    message = wrong(
        "Destination", BASE["Destination"] + "targets: {prod: {base_url: 'https://me:hunter2@x.example'}}\n"
    )
    assert "targets.prod.base_url holds a user, password or query" in message
    assert "hunter2" not in message


def test_templates_are_rendered_before_values_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_SHARDS", "7")
    sync = Sync.resolve_from_yaml(BASE["Sync"] + 'shards: "{{ env.SOME_SHARDS }}"\n')
    assert sync.shards == 7
    monkeypatch.setenv("SOME_SHARDS", "70")
    assert "shards is wrong" in wrong("Sync", BASE["Sync"] + 'shards: "{{ env.SOME_SHARDS }}"\n')


def test_constants_stay_what_they_are() -> None:
    values = {"a": '"7"', "b": '"None"', "c": '"[1]"', "d": "7", "e": "true", "f": "1.5", "g": "[1, x]", "h": '"007"'}
    fields = "".join(f"  {key}: {{value: {value}}}\n" for key, value in values.items())
    sync = Sync.resolve_from_yaml(BASE["Sync"] + fields)
    got = {key: sync.fields[key].value for key in values}
    assert got == {"a": "7", "b": "None", "c": "[1]", "d": 7, "e": True, "f": 1.5, "g": [1, "x"], "h": "007"}


@pytest.mark.parametrize(("text", "share"), [("5%", 0.05), ("0.05", 0.05), ("'0.05'", 0.05), ("0", 0), ("100%", 1)])
def test_shares(text: str, share: float) -> None:
    sync = Sync.resolve_from_yaml(BASE["Sync"] + f"removal_limit: {text}\n")
    assert sync.removal_limit == pytest.approx(share)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("1.5m", 90), ("15m", 900), ("24h", 86_400), (" 3 d ", 259_200), ("0", 0), ("'90'", 90)],
)
def test_durations(text: str, seconds: float) -> None:
    sync = Sync.resolve_from_yaml(BASE["Sync"] + f"rejected: {{wait: {text}, longest_wait: 9d}}\n")
    assert sync.rejected.wait == seconds


@pytest.mark.parametrize("text", ["", "m", "-1", "1e3", "1 week", "inf", "nan", "1h30m"])
def test_what_is_no_duration(text: str) -> None:
    assert parse_duration(text) is None


def test_keys_of_texts_make_a_field_a_string() -> None:
    field = "{column: a, lower: true, max_length: 5}"
    sync = Sync.resolve_from_yaml(BASE["Sync"].replace("full_name", field) + "nulls: clear\n")
    rule = sync.fields["name"].spec("name", "duckdb", sync.nulls).rule
    assert rule == FieldRule(type="string", lower=True, max_length=5, nulls="clear")


@pytest.mark.parametrize(
    ("field", "nulls", "means"),
    [
        ("{column: a}", "omit", "omit"),
        ("{column: a}", "clear", "clear"),
        ("{column: a}", "default", "omit"),
        ("{column: a, default: x}", "omit", "default"),
        ("{column: a, default: x}", "clear", "default"),
        ("{column: a, nulls: omit}", "clear", "omit"),
        ("{column: a, nulls: clear}", "omit", "clear"),
        ("{column: a, required: true}", "clear", "omit"),
    ],
)
def test_what_a_field_says_of_nulls_comes_before_the_sync(field: str, nulls: str, means: str) -> None:
    sync = Sync.resolve_from_yaml(BASE["Sync"].replace("full_name", field) + f"nulls: {nulls}\n")
    assert sync.fields["name"].spec("name", "duckdb", sync.nulls).rule.nulls == means


@pytest.mark.parametrize("field", ["name: {column: full_name, sensitive: true}", "other: {column: a, sensitive: true}"])
def test_a_match_value_is_not_sensitive(field: str) -> None:
    column = "full_name" if field.startswith("name") else "a"
    text = BASE["Sync"].replace("name: full_name", field) + f"match: {{name: {column}}}\n"
    message = wrong("Sync", text)
    key = field.partition(":")[0]
    assert message.startswith(f'<string>:7: sync "s1": fields.{key}.sensitive marks what match.name is made from.')
    assert "hashing of match values is not built yet." in message


def test_a_match_value_comes_from_one_column() -> None:
    message = wrong("Sync", BASE["Sync"] + "match: {name: other}\n")
    assert message.startswith('<string>:7: sync "s1": fields.name differs from match.name (other).')
    assert Sync.resolve_from_yaml(BASE["Sync"] + "match: {name: full_name}\n").match == {"name": "full_name"}


@pytest.mark.parametrize("text", ["-1", "101%", "1.5", "yes", "500%", "true"])
def test_a_removal_limit_is_a_share_or_a_number_of_rows(text: str) -> None:
    message = wrong("Sync", BASE["Sync"] + f"removal_limit: {text}\n")
    assert "removal_limit takes a share from 0 to 1" in message
    assert Sync.resolve_from_yaml(BASE["Sync"] + "removal_limit: 500\n").removal_limit == 500


def test_the_removal_limit_of_a_deletion_is_a_number_of_rows() -> None:
    bare = BASE["Sync"].split("fields:")[0].replace("mirror", "delete")
    assert "removal_limit is a share" in wrong("Sync", bare + "removal_limit: 20%\n")
    assert Sync.resolve_from_yaml(bare + "removal_limit: 50\n").removal_limit == 50


def test_a_removal_limit_needs_a_mode_that_removes() -> None:
    message = wrong("Sync", BASE["Sync"].replace("mirror", "upsert") + "removal_limit: 5%\n")
    assert message == '<string>:8: sync "s1": removal_limit has no meaning: mode upsert removes nothing. Leave it out.'


def test_python_says_the_same() -> None:
    sync = Sync(name="a", model="m", destination="d", object="o", mode="upsert", fields={"x": "y"})  # type: ignore[dict-item]
    assert (sync.model_name, sync.fields["x"].column, sync.place) == ("m", "y", "")
    assert str(sync.error("shards", "is odd.", "Change it.")) == 'sync "a": shards is odd. Change it.'


@pytest.mark.parametrize("type_", TYPES)
def test_every_key_is_described_in_the_schema(type_: str) -> None:
    schema = TYPES[type_].get_model_cls().model_json_schema()  # type: ignore[union-attr]
    objects = {type_: schema, **schema.get("$defs", {})}
    bare = [
        f"{name}.{key}"
        for name, part in objects.items()
        for key, value in part["properties"].items()
        if not value.get("description") and "$ref" not in value
    ]
    assert bare == []
    assert all(part["additionalProperties"] is False for part in objects.values())
