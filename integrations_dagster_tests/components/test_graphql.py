"""Kind `graphql` in YAML: what is a load error, and what it says."""

from __future__ import annotations

import pytest
import yaml

from integrations_dagster.components import Destination
from integrations_dagster.destinations.graphql.destination import Graphql
from integrations_dagster.vocabulary import Action, Misconfigured, Mode

ONE = """{mutation: 'mutation ($in: In!) { save(input: $in) { id } }', variables: {in: '{record}'}, answer: {id: id}}"""
LIST = """{mutation: 'mutation ($in: [In!]!) { save(inputs: $in) { id } }', variables: {in: '{rows}'},
  answer: {results: '@', id: id}}"""
SEARCH = """{query: 'query ($emails: [String]) { people(emails: $emails) { id email } }',
  variables: {emails: '{matches}'}, by: {match: email}, id: id}"""
REFERENCE = """{query: 'query ($at: String) { owners(after: $at) { id name } }', variables: {at: '{cursor}'},
  columns: {id: id, name: name}, next: {cursor: end}}"""


def load(api: str) -> Graphql:
    text = f"name: acme\nkind: graphql\ntargets: {{sandbox: {{base_url: 'http://127.0.0.1:1'}}}}\napi: {api}\n"
    component: Destination = Destination.resolve_from_yaml(text)
    made = component.spec("sandbox").create()
    assert isinstance(made, Graphql)
    return made


def changed(base: str, changes: str) -> str:
    """Keys, some of which are others ("key: null" takes one away), as YAML in one line."""
    keys = {**yaml.safe_load(base), **yaml.safe_load(f"{{{changes}}}")}
    keys = {key: value for key, value in keys.items() if value is not None}
    return yaml.safe_dump(keys, default_flow_style=True, width=10_000).strip()


def operation(changes: str, name: str = "upsert", base: str = ONE) -> str:
    return f"{{objects: {{people: {{{name}: {changed(base, changes)}}}}}}}"


def people(keys: str) -> str:
    return f"{{objects: {{people: {keys}}}}}"


def beside(keys: str) -> str:
    """An API that is right but for further keys."""
    return f"{{objects: {{people: {{create: {ONE}}}}}, {keys}}}"


def refused(api: str) -> str:
    """What the load error says."""
    with pytest.raises(Misconfigured) as caught:
        load(api)
    return str(caught.value)


def test_the_examples_of_these_tests_load() -> None:
    assert load(operation("")).limits("people", Action.UPSERT).rows == 1
    assert load(operation("rows: 50")).limits("people", Action.UPSERT).rows == 50
    assert load(operation("", base=LIST)).limits("people", Action.UPSERT).rows == 100
    assert load(beside(f"references: {{owners: {REFERENCE}}}")).label == "acme"
    assert load(people(f"{{search: {SEARCH}, create: {ONE}}}")).can_verify("people", ())


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ("", "takes a mutation of GraphQL"),
        ("mutation ($in: In!) { save(input: $in) { id }", "is no GraphQL (line 1, column 46): Expected Name"),
        ("mutation {\n  save(input: {in})\n}", "is no GraphQL (line 2, column 18)"),
        ("query ($in: In!) { save(input: $in) { id } }", "takes one mutation, and has: query"),
        ("{ save { id } }", "takes one mutation, and has: query"),
        ("mutation ($in: In!) { a: save(i: $in) { id } b: save(i: $in) { id } }", "with one field at its top"),
        ("mutation ($in: In!) { ...F } fragment F on M { save(i: $in) { id } }", "has a fragment there"),
        ("mutation ($in: In!) { save(i: $inn) { id } }", "uses $inn (line 1, column 31), which it does not declare."),
        ("mutation ($in: In!) { save(i: $inn) { id } }", 'Did you mean "in"?'),
        ("mutation ($in: In!, $n: ID) { save(i: $in) { id } }", "declares $n and does not use it"),
        ("mutation ($in: In!) { save(i: $in) { ...Gone } }", "uses the fragment Gone"),
        ('mutation ($in: In!) { save(i: $in, n: "{record.n}") { id } }', "Values travel as variables"),
        ("mutation ($in: In) { save { ...P } } fragment P on P { a(first: $in) { id } }", "uses $in in a fragment"),
        ("mutation ($in: In!, $key: ID!) { save(i: $in, k: $key) }", "lacks 'key', which the document declares as"),
    ],
)
def test_mistakes_in_documents(document: str, said: str) -> None:
    told = refused(
        operation(yaml.safe_dump({"mutation": document}, default_flow_style=True, width=10_000).strip("{}\n "))
    )
    assert said in told
    assert "api.objects.people.upsert." in told


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ("mutation: null", "mutation"),
        ("variables: {inn: '{record}'}", "has 'inn', which the document does not declare. Did you mean \"in\"?"),
        ("variables: {}", "nothing of a row would be sent"),
        ("variables: {in: {a: '{record}', b: '{recrod}'}}", "placeholder {recrod}"),
        ("variables: {in: {a: '{record}', b: '{rows}'}}", "name one row ({record}) and all of them ({rows})"),
        ("answer: null", "answer"),
        ("answer: {}", "does not say"),
        ("answer: {results: '@', id: id}", "lists rows, and the mutation is of one"),
        ("item: {a: '{record}'}", "is used by no {rows}"),
        ("repeat: with_key", "is with_key, and none is sent"),
        ("errors: {BUSY: throtled}", 'Did you mean "throttled"?'),
        ("rows: 0", "rows"),
        ("request: POST /x", "upsert.request is no key here"),
    ],
)
def test_mistakes_in_mutations(changes: str, said: str) -> None:
    told = refused(operation(changes))
    assert said in told
    assert "api.objects.people.upsert" in told


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ("answer: {id: id}", "Say where the `results` are"),
        ("answer: {results: '@'}", "nothing says which were accepted"),
        ("nothing: missing", "is about one row"),
    ],
)
def test_mistakes_in_mutations_of_lists(changes: str, said: str) -> None:
    assert said in refused(operation(changes, base=LIST))


@pytest.mark.parametrize(
    ("base", "changes", "said"),
    [
        (SEARCH, "variables: {}", "name nothing that is looked for"),
        (SEARCH, "query: 'mutation { a }'", "takes one query, and has: mutation"),
        (SEARCH, "by: {index: a}", "can be {match: PATH} or {key: PATH}"),
        (REFERENCE, "next: {link: next}", "is nothing of GraphQL's"),
        (REFERENCE, "next: {offset: 0}", "goes by offset, which no variable has"),
        (REFERENCE, "next: {cursor: end, param: x}", "Give {cursor} to a variable"),
        (REFERENCE, "key: nmae", 'Did you mean "name"?'),
    ],
)
def test_mistakes_in_queries(base: str, changes: str, said: str) -> None:
    keys = changed(base, changes)
    api = people(f"{{create: {ONE}, search: {keys}}}") if base is SEARCH else beside(f"references: {{o: {keys}}}")
    told = refused(api)
    assert said in told
    assert ("api.objects.people.search" if base is SEARCH else "api.references.o") in told


@pytest.mark.parametrize(
    ("api", "said"),
    [
        ("{}", "objects"),
        ("{objects: {}}", "takes the objects of the API by name"),
        (people("{insert: {}}"), "api.objects.people.insert is no key here"),
        (beside("path: graphql"), "api.path takes a path below base_url"),
        (beside("encoding: xml"), "api.encoding is no key here"),
        (people(f"{{create: {ONE}, fields: all}}"), "Write introspect"),
        (people("{fields: introspect}"), "whose type would tell"),
        (
            f"{{objects: {{a: {{create: {ONE}}}, b: {{create: {ONE}, fields: introspect}}}}}}",
            "api.objects.a.fields are missing",
        ),
        (operation("", "delete"), "send the record, and a deletion has none"),
        (beside("identify: {query: '{ a } }', id: id}"), "is no GraphQL"),
        (beside("identify: {query: 'query ($a: ID!) { me(id: $a) { id } }', id: id}"), "lacks 'a'"),
        (operation("variables: {in: {id: '{id}', a: '{record}'}}", "create"), "which a record that is not there yet"),
    ],
)
def test_mistakes_in_the_rest(api: str, said: str) -> None:
    assert said in refused(api)


@pytest.mark.parametrize(
    ("objects", "modes"),
    [
        (f"{{upsert: {ONE}}}", {Mode.UPSERT}),
        (f"{{upsert: {LIST}, create: {LIST}}}", {Mode.UPSERT, Mode.INSERT, Mode.APPEND}),
        ("{delete: " + changed(ONE, "variables: {in: '{match}'}") + "}", {Mode.DELETE}),
    ],
)
def test_modes_follow_from_the_mutations(objects: str, modes: set[Mode]) -> None:
    made = load(f"{{objects: {{people: {objects}}}}}")
    assert made.modes_of("people") == modes
    with pytest.raises(Misconfigured, match="Possible modes"):
        made.check("people", Mode.MIRROR, (), ())


def test_objects_without_introspection_describe_themselves() -> None:
    assert not load(operation("")).describes
    assert load(f"{{objects: {{people: {{create: {ONE}, fields: introspect}}}}}}").describes
    assert load(f"{{objects: {{people: {{create: {ONE}, fields: {{type: In}}}}}}}}").describes
    assert load(f"{{objects: {{people: {{create: {ONE}, fields: {{name: string}}}}}}}}").describes
