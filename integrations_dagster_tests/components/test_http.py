"""Kind `http` in YAML: what is a load error, and what it says."""

from __future__ import annotations

import pytest
import yaml

from integrations_dagster.components import Destination
from integrations_dagster.components.load import load_project
from integrations_dagster.destinations.http.destination import Http
from integrations_dagster.orchestration.lookups import lookup_asset
from integrations_dagster.vocabulary import Action, Misconfigured, Mode
from integrations_dagster_tests.components.project import SYNC, ProjectFolder

ROWS = "{request: POST /people/batch, rows: 50, body: {people: '{rows}'}, answer: {results: results, success: ok}}"
ONE = "{request: POST /people, body: '{record}', answer: {id: id}}"
SEARCH = "{request: GET /people, query: {email: '{match}'}, records: data, id: id, by: {match: email}}"


def load(api: str) -> Http:
    text = f"name: acme\nkind: http\ntargets: {{sandbox: {{base_url: 'http://127.0.0.1:1'}}}}\napi: {api}\n"
    component: Destination = Destination.resolve_from_yaml(text)
    made = component.spec("sandbox").create()
    assert isinstance(made, Http)
    return made


def operation(changes: str, name: str = "create", base: str = ONE) -> str:
    """An API with one operation, some of whose keys are others ("key: null" takes one away)."""
    keys = {**yaml.safe_load(base), **yaml.safe_load(f"{{{changes}}}")}
    keys = {key: value for key, value in keys.items() if value is not None}
    return yaml.safe_dump({"objects": {"people": {name: keys}}}, default_flow_style=True, width=10_000).strip()


def test_the_example_of_these_tests_loads() -> None:
    made = load(operation(""))
    assert made.label == "acme"
    assert made.limits("people", Action.CREATE).rows == 1


def test_a_target_without_an_address_lacks_it() -> None:
    with pytest.raises(Exception, match="lacks base_url"):
        Destination.resolve_from_yaml(
            f"name: acme\nkind: http\ntargets: {{sandbox: {{schedules: false}}}}\napi: {operation('')}\n"
        )


def test_reference_data_without_a_description_is_called_by_its_name() -> None:
    shelves = "{shelves: {request: GET /shelves, records: data, columns: {id: id, label: label}, key: label}}"
    text = f"name: acme\nkind: http\ntargets: {{sandbox: {{base_url: 'http://127.0.0.1:1'}}}}\napi: {operation('')}"
    component = Destination.resolve_from_yaml(f"{text.removesuffix('}')}, references: {shelves}}}\n")
    asset = lookup_asset(component.spec("sandbox"), "shelves", ("id", "label"))
    (description,) = asset.descriptions_by_key.values()
    assert description.startswith("Shelves, as syncs look them up at acme")


@pytest.mark.parametrize(
    ("api", "said"),
    [
        ("{}", "objects"),
        ("{objects: {}}", "takes the objects of the API by name"),
        (operation("answer: null"), "answer"),
        (operation("answer: {}"), "does not say what an answer with status 2xx means"),
        (operation("answer: {message: why}"), "answer: all_rows"),
        (operation("answer: some_rows"), "all_rows"),
        (operation("answer: {means: all_rows, success: ok}"), "has `success` too"),
        (operation("answer: {results: list}", base=ROWS), "nothing says which were accepted"),
        (operation("answer: {id: id}", base=ROWS), "Say where the `results` are"),
        (operation("answer: {results: 'a[', success: ok}"), "is no JMESPath expression"),
        (operation("answer: {results: list, success: 'size(@)'}"), 'no function "size"'),
        (operation("answer: {results: list, by: email, success: ok}"), "Write order, or where they are named"),
        (operation("answer: {results: list, by: {match: a, key: b}, success: ok}"), "exactly one of"),
        (operation("answer: {results: list, accepted: [ok], id: id}"), "`status` does not say where they are"),
        (operation("answer: {results: list, success: ok, rest: missing}"), "takes a list of `results`, with `by`"),
        (operation("answer: {failures: {list: bad, by: {index: i}}}"), "Write `rest: accepted`"),
        (operation("answer: {results: list, success: ok, rest: accepted}"), "takes a list of `failures`"),
        (operation("request: GET /people"), "use one of POST, PUT, PATCH, DELETE"),
        (operation("request: people"), "takes a method and a path"),
        (operation("request: 'POST /people?x=1'"), "Parameters belong in `query`"),
        (operation("body: '{recrod}'"), 'Did you mean "record"?'),
        (operation("body: '{record.a}{rows.b}'"), "{rows} has no parts"),
        (operation("request: 'POST /{rows}'"), "means nothing here"),
        (operation("body: {name: x}"), "nothing of a row would be sent"),
        (operation("body: {name: x}", base=ROWS), "nothing of the rows would be sent"),
        (operation("body: '{record}'", base=ROWS), "put {rows} where they go"),
        (operation("item: {a: '{record}'}"), "is used by no {rows}"),
        (operation("body: {'...': '{key}', a: '{record}'}"), "puts the members of the record in its place"),
        (operation("headers: {Authorization: x}"), "credentials are `auth` of the target"),
        (operation("headers: {'X Y': a}"), "is no name of a header"),
        (operation('headers: {X: "a\\r\\nb"}'), "no header can carry"),
        (operation("repeat: with_key"), "no key is sent"),
        (operation("repeat: sometimes"), "repeat"),
        (operation("errors: {404: mising}"), 'Did you mean "missing"?'),
        (operation("errors: {404: {as: retry}}"), "nothing that an error can mean"),
        (operation("statuses: [2x]"), "is no status"),
        (operation("encoding: xml"), "takes a mapping, to be written as xml"),
        (operation("encoding: xml, body: {a: '{record}', b: 1}"), "the root element"),
        (operation("encoding: xml, body: {'a b': '{record}'}"), "no name of an element"),
        (operation("request: 'POST /people/{id}'"), "which a record that is not there yet does not have"),
        (operation("request: DELETE /people", name="delete"), "a deletion has none"),
        (operation("job: {id: id, poll: POST /jobs, done: a}"), "must change nothing: use GET"),
        (operation("job: {id: id, poll: 'GET /jobs/{id}', done: a}"), "Known: {job}, {object}"),
        (
            operation("job: {id: id, poll: GET /jobs, done: a, next: {link: next}}"),
            "which `next` and `query` belong to",
        ),
        (operation("", name="mirror"), "is no key here"),
        (f"{{objects: {{a: {{create: {ONE}, fields: {{x: string}}}}, b: {{create: {ONE}}}}}}}", "b.fields are missing"),
        (f"{{objects: {{a: {{create: {ONE}, fields: {{x: strng}}}}}}}}", "a.fields.x"),
        (operation("")[:-1] + ", references: {o: {request: GET /o, records: '@', columns: {}}}}", "columns"),
        (
            operation("")[:-1] + ", references: {o: {request: DELETE /o, records: '@', columns: {id: id}}}}",
            "must change nothing",
        ),
        (
            operation("")[:-1] + ", references: {o: {request: GET /o, records: '@', columns: {id: id}, key: nmae}}}",
            "is no column",
        ),
        (
            operation("")[:-1]
            + ", references: {o: {request: GET /o, records: d, columns: {a: b}, next: {cursor: c}}}}",
            "does not say how cursor is sent",
        ),
        (
            operation("")[:-1]
            + ", references: {o: {request: GET /o, records: d, columns: {a: b}, next: {url: c, link: next}}}}",
            "exactly one of",
        ),
        (f"{{objects: {{people: {{search: {SEARCH.replace('{match}', 'x')}}}}}}}", "names nothing that is looked for"),
        (f"{{objects: {{people: {{search: {SEARCH[:-1]}, rows: 9}}}}}}}}", "Put {keys} or {matches} into"),
    ],
)
def test_a_mistake_is_told_at_load(api: str, said: str) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 (Dagster wraps what pydantic raises)
        load(api)
    assert said in str(caught.value)


def test_an_api_is_required_and_no_other_kind_takes_one() -> None:
    with pytest.raises(Exception, match="objects"):
        load("null")
    text = "name: hook\nkind: webhook\ntargets: {sandbox: {sandbox: true}}\napi: {}\n"
    with pytest.raises(Exception, match="nothing that Webhook takes"):
        Destination.resolve_from_yaml(text)


def test_a_file_without_the_sandbox_names_a_server_on_this_machine() -> None:
    text = f"name: acme\nkind: http\ntargets: {{sandbox: {{sandbox: true}}}}\napi: {operation('')}\n"
    with pytest.raises(Exception, match="does not stand in for HTTP API"):
        Destination.resolve_from_yaml(text)


BY_ID = "{request: 'PATCH /people/{id}', body: '{record}', answer: all_rows}"
DELETE = "{request: 'DELETE /people/{id}', answer: all_rows}"
BY_MATCH = "{request: 'PUT /people/{match}', body: '{record}', answer: {id: id}}"


@pytest.mark.parametrize(
    ("operations", "modes"),
    [
        (f"create: {ONE}", {"insert", "append"}),
        (f"update: {BY_ID}", set()),
        (f"update: {BY_MATCH}", {"update"}),
        (f"update: {BY_ID}, search: {SEARCH}", {"update"}),
        (f"upsert: {BY_MATCH}", {"upsert"}),
        (f"upsert: {BY_MATCH}, delete: {DELETE}", {"upsert", "mirror"}),
        (f"upsert: {BY_MATCH.replace('{id: id}', 'all_rows')}, delete: {DELETE}", {"upsert"}),
        (f"upsert: {BY_MATCH}, delete: {DELETE.replace('{id}', '{key}')}", {"upsert", "mirror", "delete"}),
        (f"create: {ONE}, update: {BY_ID}", {"insert", "append"}),
        (f"create: {ONE}, update: {BY_ID}, search: {SEARCH}", {"insert", "append", "update", "upsert"}),
        (f"create: {ONE}, update: {BY_ID}, search: {SEARCH}, delete: {DELETE}", {mode.value for mode in Mode}),
    ],
)
def test_the_modes_follow_from_the_operations(operations: str, modes: set[str]) -> None:
    made = load(f"{{objects: {{people: {{match: [email], {operations}}}}}}}")
    assert {mode.value for mode in made.modes_of("people")} == modes
    for mode in Mode:
        if mode.value in modes:
            made.check("people", mode, ("email",), ("name",))
        else:
            with pytest.raises(Misconfigured, match="lacks") as caught:
                made.check("people", mode, ("email",), ("name",))
            assert "`" in caught.value.message


@pytest.mark.parametrize(
    ("object_", "mode", "match", "said"),
    [
        ("peple", Mode.UPSERT, ("email",), 'Did you mean "people"'),
        ("people", Mode.UPSERT, (), "write `match: {email: <column>}`"),
        ("people", Mode.UPSERT, ("phone",), "not recognized by 'phone'"),
        ("keyed", Mode.UPSERT, ("email",), "take no match"),
    ],
)
def test_what_a_sync_may_say(object_: str, mode: Mode, match: tuple[str, ...], said: str) -> None:
    made = load(f"{{objects: {{people: {{match: [email], upsert: {BY_MATCH}}}, keyed: {{upsert: {BY_MATCH}}}}}}}")
    with pytest.raises(Misconfigured) as caught:
        made.check(object_, mode, match, ("name",))
    assert said.lower() in str(caught.value).lower()


def test_fields_that_meet_members_of_the_body() -> None:
    made = load(operation("body: {kind: person, '...': '{record}'}"))
    with pytest.raises(Misconfigured, match="a member 'kind' of its own"):
        made.check("people", Mode.INSERT, (), ("kind",))
    made = load(operation("encoding: xml, body: {person: '{record}'}"))
    with pytest.raises(Misconfigured, match="no name of an XML element"):
        made.check("people", Mode.INSERT, (), ("first name",))


HOOK = """
type: integrations_dagster.Destination
attributes:
  name: hook
  kind: http
  targets: {sandbox: {base_url: "http://127.0.0.1:1"}}
  api:
    objects:
      people:
        upsert: {request: "PUT /people/{key}", body: "{record}", answer: all_rows}
        delete: {request: "DELETE /people/{key}", answer: all_rows}
"""


def test_a_sync_to_it_loads_with_the_project(project: ProjectFolder) -> None:
    project.write("hook", HOOK)
    loaded = load_project(project.root)
    assert not loaded.broken
    (sync,) = loaded.specs
    assert sync.destination.create().label == "hook"


def test_a_mode_without_its_operation_is_told_at_the_sync(project: ProjectFolder) -> None:
    project.write("hook", HOOK.replace("        delete: ", "        modify: ").replace("DELETE /", "PATCH /"))
    error = load_project(project.root).broken["people_to_hook"]
    assert "people cannot be delivered in mode 'mirror'" in error
    assert "lacks `delete`" in error


@pytest.mark.parametrize(
    ("said", "fits"),
    [("{record.name}", False), ("{record.name.first}", False), ("{record.other}", True)],
)
def test_a_sensitive_field_is_only_sent_in_the_record(project: ProjectFolder, said: str, fits: bool) -> None:
    project.write("hook", HOOK.replace('"PUT /people/{key}"', f'"PUT /people/{{key}}", query: {{q: "{said}"}}'))
    project.write("people_to_hook", SYNC.replace("name: full_name", "name: {column: full_name, sensitive: true}"))
    broken = load_project(project.root).broken
    if fits:
        assert not broken
    else:
        assert "logs would not recognize it" in broken["people_to_hook"]
