"""The forms in which an operator may write KACHING's public key."""

from __future__ import annotations

import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, derive_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from chorus.license.keys import PinnedKey, normal, read_keys, write_keys

# Fixed, as it is part of the names of tests.
PUBLIC = Ed25519PrivateKey.from_private_bytes(bytes(range(32))).public_key()
RAW = PUBLIC.public_bytes_raw()
OTHER = bytes(range(32))
PEM = PUBLIC.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
DER = PUBLIC.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
BASE64 = base64.b64encode(RAW).decode()
URLSAFE = base64.urlsafe_b64encode(RAW).decode().rstrip("=")
JWK = {"kty": "OKP", "crv": "Ed25519", "x": URLSAFE, "kid": "k1"}


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        (RAW.hex(), [("", RAW)]),
        (RAW.hex().upper(), [("", RAW)]),
        (BASE64, [("", RAW)]),
        (URLSAFE, [("", RAW)]),
        (base64.b64encode(DER).decode(), [("", RAW)]),
        (PEM, [("", RAW)]),
        (f"k1={PEM}", [("k1", RAW)]),
        (PEM + f"k2: {PEM}", [("", RAW), ("k2", RAW)]),
        (f"k1={BASE64},k2:{OTHER.hex()}", [("k1", RAW), ("k2", OTHER)]),
        (f" k1={URLSAFE}\n {OTHER.hex()} \n", [("k1", RAW), ("", OTHER)]),
        (json.dumps(JWK), [("k1", RAW)]),
        (json.dumps({"keys": [JWK, {**JWK, "kid": None}]}), [("k1", RAW), ("", RAW)]),
    ],
)
def test_a_key_is_read_in_any_usual_form(text: str, keys: list[tuple[str, bytes]]) -> None:
    assert read_keys(text) == tuple(PinnedKey(*key) for key in keys)
    assert read_keys(normal(text)) == read_keys(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ",",
        "secret",
        RAW.hex()[:-2],
        BASE64 + "AAAA",
        f"k1={BASE64},k1={OTHER.hex()}",
        ",".join([OTHER.hex()] * 17),
        PEM.replace("PUBLIC", "PRIVATE"),
        PEM + "and more",
        derive_private_key(1, SECP256R1())
        .public_key()
        .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        .decode(),
        json.dumps({**JWK, "crv": "Ed448"}),
        json.dumps({"keys": []}),
        "{",
    ],
)
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 the form in words is the setting's
        read_keys(text)


@given(st.text() | st.from_regex(r"\{.*\}|-----BEGIN .*"))
def test_no_text_does_more_than_be_refused(text: str) -> None:
    try:
        keys = read_keys(text)
    except (ValueError, RecursionError):
        return
    assert read_keys(write_keys(keys)) == keys
