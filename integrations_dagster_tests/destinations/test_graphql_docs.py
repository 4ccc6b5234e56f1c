"""The page of kind `graphql` names every key that there is, and says of codes what is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from integrations_dagster.destinations.graphql import forms, reading_forms
from integrations_dagster.destinations.graphql.introspection import TYPES
from integrations_dagster.destinations.graphql.problems import CODES
from integrations_dagster.keys import Keys

PAGE = (Path(__file__).parents[2] / "docs" / "destinations" / "graphql.md").read_text("utf-8")
FORMS = sorted(
    {
        form
        for module in (forms, reading_forms)
        for form in vars(module).values()
        if isinstance(form, type) and issubclass(form, Keys) and form.__module__ == module.__name__
    }
    - {forms.SentKeys},
    key=lambda form: form.__name__,
)


@pytest.mark.parametrize("form", FORMS)
def test_every_key_is_on_the_page(form: type[Keys]) -> None:
    text = re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL)
    words = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]+)`", text))))
    assert set(form.keys()) <= words


def test_the_codes_mean_what_the_page_says() -> None:
    table = PAGE.split("| code | word |")[1].split("\n\n")[0]
    for code, meaning in CODES.items():
        line = next(line for line in table.splitlines() if f"`{code}`" in line)
        assert line.endswith(f"| `{meaning['as']}` |"), code


def test_the_scalars_of_the_page_are_known() -> None:
    told = PAGE.split("the scalars ")[1].split(" are known")[0].split("\n")
    assert set(re.findall(r"`(\w+)`", " ".join(told))) <= set(TYPES)
