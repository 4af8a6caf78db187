"""Which version of its API is spoken with which Docker daemon, and what a pull asks it for."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chorus.executor.backend import BackendUnavailable
from chorus.executor.docker.engine import API_OLDEST, api_version


@pytest.mark.parametrize(
    ("newest", "oldest", "spoken"),
    [
        ("1.41", "1.12", "1.41"),  # Docker Engine 20.10, as Debian 12 has it
        ("1.43", "1.12", "1.43"),
        ("1.47", "1.24", "1.44"),
        ("1.52", "1.44", "1.44"),  # Docker Engine 29
        ("1.60", "1.50", "1.50"),
        ("1.41", None, "1.41"),
    ],
)
def test_one_that_both_know(newest: str, oldest: str | None, spoken: str) -> None:
    assert api_version({"Version": "x", "ApiVersion": newest, "MinAPIVersion": oldest}) == spoken


def test_a_daemon_that_is_too_old_is_told_what_to_do() -> None:
    with pytest.raises(BackendUnavailable, match=r"Docker 19.03.15 speaks version 1.40 .* Engine 20.10"):
        api_version({"Version": "19.03.15", "ApiVersion": "1.40", "MinAPIVersion": "1.12"})


ANY = (
    st.none() | st.text(max_size=8) | st.integers() | st.from_regex(r"[0-9]{1,3}\.[0-9]{1,3}", fullmatch=True)
)


@given(newest=ANY, oldest=ANY)
def test_whatever_a_daemon_says(newest: Any, oldest: Any) -> None:
    try:
        spoken = api_version({"ApiVersion": newest, "MinAPIVersion": oldest})
    except BackendUnavailable:
        return
    assert tuple(map(int, spoken.split("."))) >= API_OLDEST
