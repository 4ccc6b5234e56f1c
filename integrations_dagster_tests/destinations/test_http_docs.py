"""The page of kind `http` names every key that there is, and says of errors what is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from integrations_dagster.destinations.http import answer_forms, forms, reading_forms, templates
from integrations_dagster.destinations.http.errors import DEFAULTS
from integrations_dagster.destinations.http.paging import MOST_EMPTY
from integrations_dagster.keys import Keys

PAGE = (Path(__file__).parents[2] / "docs" / "destinations" / "http.md").read_text("utf-8")
FORMS = sorted(
    {
        form
        for module in (answer_forms, forms, reading_forms)
        for form in vars(module).values()
        if isinstance(form, type) and issubclass(form, Keys) and form is not Keys
    },
    key=lambda form: form.__name__,
)


@pytest.mark.parametrize("form", FORMS)
def test_every_key_is_on_the_page(form: type[Keys]) -> None:
    # Blocks of code would put the marks out of step.
    text = re.sub(r"```.*?```|``.*?``", "", PAGE, flags=re.DOTALL)
    words = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]+)`", text))))
    assert set(form.keys()) <= words


def test_every_placeholder_and_word_is_on_the_page() -> None:
    known = (*templates.OF_ROW, *templates.OF_BATCH, *templates.OF_PAGE, *templates.OF_JOB)
    assert [name for name in known if f"`{{{name}}}`" not in PAGE] == []
    assert [word for word in answer_forms.WORDS if f"| `{word}` |" not in PAGE] == []


def test_the_statuses_mean_what_the_page_says() -> None:
    table = PAGE.split("| status | word |")[1].split("\n\n")[0]
    for status, word, _, _ in DEFAULTS:
        line = next(line for line in table.splitlines() if re.search(rf"\b{status}\b", line))
        assert line.endswith(f"| `{word}` |"), status
    assert f"more than {MOST_EMPTY} empty" in PAGE
