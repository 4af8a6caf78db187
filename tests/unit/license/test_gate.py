"""The licence gate: who passes without a licence server, and what the others are told."""

from __future__ import annotations

import pytest

from chorus.license import Gate, LicenceRefused, check, kind_of, shown


def test_a_development_id_passes_and_says_so() -> None:
    licence = check("dev-local-123", "", "")
    assert licence is not None
    assert licence.kind == "development"
    assert licence.agents_max == 16
    assert "development licence" in licence.notice


@pytest.mark.parametrize(
    ("license_id", "url", "told"),
    [
        ("", "", "CHORUS_LICENSE_ID is not set"),
        ("prod-123", "", "CHORUS_KACHING_URL is not set"),
        ("devil", "", "only development licences"),
        ("dev-", "", "put a name"),
        ("dev-1", "https://kaching.example", "CHORUS_KACHING_PUBLIC_KEY is not set"),
        ("", "https://kaching.example", "CHORUS_LICENSE_ID is not set"),
    ],
)
def test_others_are_refused_with_a_reason(license_id: str, url: str, told: str) -> None:
    with pytest.raises(LicenceRefused, match=told):
        check(license_id, url, "")


@pytest.mark.parametrize(
    ("license_id", "seen"),
    [
        ("dev-1", "development"),
        ("dev-456789abcdef", "development"),
        ("dev-456789abcdef0", "development …def0"),
        ("prod-1", "production"),
        ("PROD-0123456789-WXYZ", "production …WXYZ"),
        ("dev-0123456789abc\x1b[2J", "development …?[2J"),
    ],
)
def test_an_id_is_shown_as_its_kind_and_the_end_of_a_long_one(license_id: str, seen: str) -> None:
    assert shown(license_id) == seen


@pytest.mark.parametrize("license_id", ["dev-", "prod-1", "prod-0123456789-0123456789"])
def test_no_refusal_repeats_the_id(license_id: str) -> None:
    with pytest.raises(LicenceRefused) as refused:
        check(license_id, "", "")
    assert license_id == "dev-" or license_id not in str(refused.value)


def test_the_gate_counts_what_it_was_asked_and_refused() -> None:
    gate = Gate()
    gate.check("dev-1", "", "")
    with pytest.raises(LicenceRefused):
        gate.check("", "", "")
    assert (gate.checks, gate.failures) == (2, 1)


@pytest.mark.parametrize("license_id", ["dev-1", "prod-1"])
def test_with_a_licence_server_every_id_is_one_of_its(license_id: str) -> None:
    assert check(license_id, "https://kaching.example", "a key") is None
    assert kind_of(license_id, "https://kaching.example") == "production"
