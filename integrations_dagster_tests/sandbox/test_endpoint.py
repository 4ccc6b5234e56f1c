from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from integrations_dagster.sandbox.endpoint import (
    endpoint_path,
    new_endpoint,
    read_endpoint,
    started,
    write_endpoint,
)


def test_what_is_written_is_read_and_only_by_its_owner(tmp_path: Path) -> None:
    endpoint = started(new_endpoint(), "http://127.0.0.1:1", 7, 1.5)
    write_endpoint(tmp_path, endpoint)
    write_endpoint(tmp_path, endpoint)
    assert read_endpoint(tmp_path) == endpoint
    assert stat.S_IMODE(endpoint_path(tmp_path).stat().st_mode) == 0o600
    assert [p.name for p in endpoint_path(tmp_path).parent.iterdir()] == ["sandbox.json"]


def test_every_new_sandbox_has_its_own_id_token_and_secret() -> None:
    one, other = new_endpoint(), new_endpoint()
    assert one.id != other.id
    assert one.token != other.token
    assert one.secret != other.secret
    assert one.secret.startswith("whsec_")


def test_no_file_is_no_endpoint_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    assert read_endpoint(tmp_path) is None
    endpoint_path(tmp_path).parent.mkdir()
    endpoint_path(tmp_path).write_text('{"id": "x"')
    with pytest.raises(ValueError, match=r"sandbox\.json"):
        read_endpoint(tmp_path)


def test_finding_the_sandbox_does_not_import_its_server() -> None:
    code = (
        "import sys, integrations_dagster.sandbox.endpoint; "
        "sys.exit(bool({'starlette', 'uvicorn', 'requests', 'dagster'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
