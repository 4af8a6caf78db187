"""A token counts only when a pinned key signed it and every claim is as it should be."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from chorus.license.refusals import Denied, LicenceRefused, NoAnswer, Reason, reason_in, said
from chorus.license.token import (
    LEEWAY_S,
    TOKEN_MAX_BYTES,
    Claims,
    check_mine,
    check_nonce,
    check_times,
    read_token,
    secret_of,
)

from .tokens import NOW, PEER_ID, SECRET, claims, pinned, token

KEY = Ed25519PrivateKey.generate()
OTHER = Ed25519PrivateKey.generate()


def check(text: str, now: float = NOW, **mine: str) -> Claims:
    """All that an agent checks of an answer."""
    found = read_token(text, [pinned(KEY)])
    expected = {"license_id": "prod-1", "cluster_id": "c1", "peer_id": PEER_ID, "agent_id": "a"}
    check_mine(found, **{**expected, **mine})
    check_nonce(found, "n1")
    check_times(found, now)
    return found


def refusal(call: Callable[[], object]) -> LicenceRefused:
    with pytest.raises(LicenceRefused) as caught:
        call()
    return caught.value


def test_a_good_token_says_what_it_grants() -> None:
    found = check(token(KEY))
    assert (found.lease_id, found.lease_ttl_s, found.max_agents) == ("lease-1", 30, 3)


@pytest.mark.parametrize(
    "changed",
    [
        {"aud": ["someone", "CHORUS"]},
        {"aud": "c1"},
        {"aud": PEER_ID},
        {"permissions": "agent:read agent:run"},
        {"permissions": ["x", "agent:run"]},
        {"exp": NOW + 0.5},
        {"exp": NOW - LEEWAY_S},
        {"nbf": NOW + LEEWAY_S},
        {"lease_ttl_s": 1.5},
        {"more": {"than": ["is", "known"]}},
    ],
)
def test_what_the_interface_leaves_open_is_not_demanded(changed: dict[str, Any]) -> None:
    check(token(KEY, **changed))


@pytest.mark.parametrize(
    ("changed", "reason", "kind"),
    [
        ({"sub": "prod-2"}, Reason.WRONG_LICENCE, NoAnswer),
        ({"peer_id": "12D3KooWother"}, Reason.WRONG_PEER, NoAnswer),
        ({"nonce": "n2"}, Reason.REPLAYED_NONCE, NoAnswer),
        ({"exp": NOW - LEEWAY_S - 1}, Reason.EXPIRED, NoAnswer),
        ({"nbf": NOW + LEEWAY_S + 1}, Reason.NOT_YET_VALID, NoAnswer),
        ({"aud": "kaching-admin"}, Reason.WRONG_AUDIENCE, Denied),
        ({"cluster_id": "c2"}, Reason.WRONG_CLUSTER, Denied),
        ({"permissions": ["agent:read"]}, Reason.PERMISSION_MISSING, Denied),
        ({"permissions": []}, Reason.PERMISSION_MISSING, Denied),
    ],
)
def test_a_claim_that_is_wrong_is_named(
    changed: dict[str, Any], reason: Reason, kind: type[LicenceRefused]
) -> None:
    refused = refusal(lambda: check(token(KEY, **changed)))
    assert (refused.reason, type(refused)) == (reason, kind)


@pytest.mark.parametrize("name", claims())
@pytest.mark.parametrize("value", [None, {}, 2**60, "", [1]])
def test_a_claim_that_is_missing_or_of_another_form_is_named(name: str, value: object) -> None:
    refused = refusal(lambda: check(token(KEY, **{name: value})))
    if name == "permissions" and value == "":
        assert refused.reason is Reason.PERMISSION_MISSING
    elif name == "aud" and value == "":
        assert refused.reason is Reason.WRONG_AUDIENCE
    else:
        assert refused.reason is Reason.MALFORMED_TOKEN
        assert name in str(refused)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), True, "1800000000", -1])
@pytest.mark.parametrize("name", ["exp", "nbf", "lease_ttl_s", "max_agents"])
def test_a_number_is_a_number(name: str, value: object) -> None:
    head = base64.urlsafe_b64encode(b'{"alg":"EdDSA"}').rstrip(b"=")
    body = base64.urlsafe_b64encode(json.dumps(claims(**{name: value})).encode()).rstrip(b"=")
    signature = base64.urlsafe_b64encode(KEY.sign(head + b"." + body)).rstrip(b"=")
    refused = refusal(lambda: check(b".".join((head, body, signature)).decode()))
    assert refused.reason is Reason.MALFORMED_TOKEN


def _public(form: Encoding) -> bytes:
    shape = PublicFormat.Raw if form is Encoding.Raw else PublicFormat.SubjectPublicKeyInfo
    return KEY.public_key().public_bytes(form, shape)


def _by_hand(head: dict[str, Any], signature: bytes) -> str:
    parts = (json.dumps(head).encode(), json.dumps(claims()).encode(), signature)
    return b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts).decode()


@pytest.mark.parametrize(
    "forged",
    [
        lambda: jwt.encode(claims(), "", algorithm="none"),
        lambda: _by_hand({"alg": "None"}, b""),
        lambda: _by_hand({"alg": "HS256", "typ": "JWT"}, _hmac(_public(Encoding.Raw))),
        lambda: jwt.encode(claims(), "x" * 32, algorithm="HS256"),
        lambda: jwt.encode(claims(), ec.generate_private_key(ec.SECP256R1()), algorithm="ES256"),
        lambda: jwt.encode(claims(), rsa.generate_private_key(65537, 2048), algorithm="RS256"),
        lambda: _by_hand({"alg": ["EdDSA"]}, b""),
        lambda: _by_hand({"typ": "JWT"}, b""),
    ],
)
def test_no_other_algorithm_counts(forged: Callable[[], str]) -> None:
    refused = refusal(lambda: check(forged()))
    assert refused.reason in (Reason.WRONG_ALGORITHM, Reason.MALFORMED_TOKEN)
    assert isinstance(refused, NoAnswer)


def _hmac(key: bytes) -> bytes:
    head = base64.urlsafe_b64encode(json.dumps({"alg": "HS256", "typ": "JWT"}).encode()).rstrip(b"=")
    body = base64.urlsafe_b64encode(json.dumps(claims()).encode()).rstrip(b"=")
    return hmac.digest(key, head + b"." + body, "sha256")


def test_only_a_pinned_key_signs() -> None:
    assert refusal(lambda: check(token(OTHER))).reason is Reason.BAD_SIGNATURE
    assert refusal(lambda: check(token(ed448.Ed448PrivateKey.generate()))).reason is Reason.BAD_SIGNATURE
    good = token(KEY)
    head, body, signature = good.split(".")
    changed = base64.urlsafe_b64encode(json.dumps(claims(max_agents=999)).encode()).rstrip(b"=").decode()
    assert refusal(lambda: check(f"{head}.{changed}.{signature}")).reason is Reason.BAD_SIGNATURE
    assert refusal(lambda: check(f"{head}.{body}.")).reason is Reason.BAD_SIGNATURE


def test_a_token_names_its_key_during_a_rotation() -> None:
    both = [pinned(KEY, "new"), pinned(OTHER, "old")]
    assert read_token(token(KEY, "new"), both) == read_token(token(OTHER, "old"), both)
    assert read_token(token(OTHER), both).sub == "prod-1"
    assert refusal(lambda: read_token(token(OTHER, "new"), both)).reason is Reason.BAD_SIGNATURE
    assert refusal(lambda: read_token(token(KEY, "newer"), both)).reason is Reason.UNKNOWN_KEY
    assert read_token(token(KEY, "newer"), [pinned(KEY)]).sub == "prod-1"


@given(st.text() | st.from_regex(r"[\w-]*\.[\w-]*\.[\w-]*"))
def test_no_text_does_more_than_be_refused(text: str) -> None:
    assert isinstance(refusal(lambda: check(text)), NoAnswer)


@pytest.mark.parametrize(
    "text", ["x" * (TOKEN_MAX_BYTES + 1), "a.b.c", "..", _by_hand({"alg": "EdDSA"}, b"x")]
)
def test_what_is_no_token_is_refused(text: str) -> None:
    assert isinstance(refusal(lambda: check(text)), NoAnswer)


def test_the_secret_is_the_settings_or_else_the_servers_and_the_token_names_it() -> None:
    found = check(token(KEY))
    assert secret_of(found, SECRET, "") == SECRET
    assert secret_of(found, b"", SECRET.decode()) == SECRET
    assert secret_of(found, SECRET, "something else") == SECRET
    assert secret_of(found, b"", "") == b""
    assert refusal(lambda: secret_of(found, b"x" * 32, SECRET.decode())).reason is Reason.WRONG_SECRET
    given = refusal(lambda: secret_of(found, b"", "something else"))
    assert (given.reason, type(given)) == (Reason.WRONG_SECRET, NoAnswer)


@pytest.mark.parametrize("write", [bytes.hex, lambda raw: base64.b64encode(raw).decode()])
@pytest.mark.parametrize(
    "digest", [bytes.hex, lambda raw: raw.hex().upper(), lambda raw: base64.urlsafe_b64encode(raw).decode()]
)
def test_a_secret_of_raw_bytes_is_told_by_its_hash(
    write: Callable[[bytes], str], digest: Callable[[bytes], str]
) -> None:
    raw = bytes(range(200, 232))
    named = digest(hashlib.sha256(raw).digest())
    assert secret_of(check(token(KEY, cluster_secret_sha256=named)), b"", write(raw)) == raw


def test_every_reason_says_what_to_do() -> None:
    for reason in set(Reason) - {Reason.SETTING}:
        what, _, remedy = said(reason).partition(": ")
        assert what, reason
        assert len(remedy) > 10, reason
    assert len({said(reason) for reason in set(Reason) - {Reason.SETTING}}) == len(Reason) - 1


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"code": "seats_used_up", "detail": "the cluster is full"}, Reason.SEATS_USED_UP),
        ({"error": "License suspended by owner"}, Reason.SUSPENDED),
        ({"error": {"code": "LICENSE_EXPIRED"}}, Reason.EXPIRED),
        ({"detail": "license is not yet valid"}, Reason.NOT_YET_VALID),
        ({"message": "wrong cluster"}, Reason.WRONG_CLUSTER),
        ({"message": "no seats left"}, Reason.SEATS_USED_UP),
        ({"message": "max_agents reached"}, Reason.SEATS_USED_UP),
        ({"message": "unknown lease"}, Reason.UNKNOWN_LEASE),
        ({"message": "license not found"}, Reason.UNKNOWN),
        ({"message": "bad signature of the peer"}, Reason.BAD_SIGNATURE),
        ("nonce was used before", Reason.REPLAYED_NONCE),
        ({"message": "go away"}, None),
        ([], None),
    ],
)
def test_a_no_is_understood_by_its_code_or_its_words(body: object, reason: Reason | None) -> None:
    assert reason_in(body) is reason
