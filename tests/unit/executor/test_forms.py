"""A task's secrets are cut from its output in every form that common tools give them, in whatever pieces."""

from __future__ import annotations

import base64
import json
import shlex
import shutil
import subprocess
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from chorus.executor.forms import FORMS_BYTES_MAX, VALUE_BYTES_MIN, forms
from chorus.executor.redaction import Sentinel, cut_text

MARK = b"[REDACTED:task-secret]"
UNHURRIED = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
KEY = "\n".join(
    ["-----BEGIN KEY-----", "  q83vEjRWeJCrze8SNFZ4kA==", "b3BlbnNzaC\"rZXkt/djE'x", "-----END KEY-----"]
)

ENCODERS: dict[str, Callable[[str], str]] = {
    "plain": lambda text: text,
    "json": lambda text: json.dumps(text)[1:-1],
    "json, any letter": lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    "json in json": lambda text: json.dumps(json.dumps(text)[1:-1])[1:-1],
    "json, slashes": lambda text: json.dumps(text)[1:-1].replace("/", "\\/"),
    "url": lambda text: quote(text, safe=""),
    "url, slashes": lambda text: quote(text),
    "form": quote_plus,
    "repr": lambda text: repr(text)[1:-1],
    "repr of bytes": lambda text: repr(text.encode())[2:-1],
    "hex": lambda text: text.encode().hex(),
    "HEX": lambda text: text.encode().hex().upper(),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 without padding": lambda text: base64.b64encode(text.encode()).decode().rstrip("="),
    "base64 for urls": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
}

secrets = st.text(
    st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cs"]), min_size=8, max_size=80
)


def cut(secret: bytes, text: bytes, places: list[int]) -> bytes:
    redactor = Sentinel([secret])
    out, before = b"", 0
    for place in sorted(places):
        out += redactor.push(text[before:place])
        before = place
    return out + redactor.push(text[before:]) + redactor.finish()


@pytest.mark.parametrize("form", ENCODERS)
@UNHURRIED
@given(data=st.data(), secret=secrets)
def test_any_secret_in_any_form_is_cut_in_any_pieces(form: str, data: st.DataObject, secret: str) -> None:
    encoded = ENCODERS[form](secret).encode()
    text = b"[" + encoded + b"]\n"
    places = data.draw(st.lists(st.integers(0, len(text)), max_size=4))
    assert cut(secret.encode(), text, places) == b"[" + MARK + b"]\n"


@UNHURRIED
@given(
    data=st.data(),
    secret=secrets,
    before=st.binary(max_size=8),
    after=st.binary(max_size=8),
    url=st.booleans(),
)
def test_a_secret_inside_longer_base64_is_cut(
    data: st.DataObject, secret: str, before: bytes, after: bytes, url: bool
) -> None:
    value = secret.encode()
    encode = base64.urlsafe_b64encode if url else base64.standard_b64encode
    text = b"[" + encode(before + value + after) + b"]"
    places = data.draw(st.lists(st.integers(0, len(text)), max_size=4))
    out = cut(value, text, places)
    assert MARK in out
    # At most the two characters at either border share bits with what is around the secret, and are left.
    first, last = len(encode(before).rstrip(b"=")), len(encode(after).rstrip(b"="))
    assert len(out) <= len(b"[]") + first + last + 4 + len(MARK)


@UNHURRIED
@given(st.binary(max_size=200), secrets, st.lists(st.integers(0, 200), max_size=4))
def test_what_is_no_secret_stays_exact(text: bytes, secret: str, places: list[int]) -> None:
    redactor, plain = Sentinel([secret.encode()]), Sentinel()
    assume(not any(form in text for form in forms([secret.encode()])))
    out = b"".join(
        redactor.push(text[a:b]) for a, b in zip([0, *sorted(places)], [*sorted(places), None], strict=True)
    )
    assert out + redactor.finish() == plain.push(text) + plain.finish()


@pytest.mark.parametrize("form", ENCODERS)
def test_lines_of_a_value_are_cut_in_every_form(form: str) -> None:
    redactor = Sentinel([KEY.encode()])
    for line in KEY.splitlines():
        out = cut_text(f"<{ENCODERS[form](line.strip())}>", redactor)
        assert out == f"<{MARK.decode()}>"
    # As one of its lines stands in a listing with numbers, or cut out of it.
    assert cut_text(f"3: {KEY.splitlines()[2]}\n", redactor) == f"3: {MARK.decode()}\n"


def test_what_a_shell_and_base64_print_is_cut() -> None:
    bash = shutil.which("bash")
    assert bash is not None
    secret = (
        'it\'s a "secret" of $ome <words> & \\ more, long enough that base64 breaks its lines: 0123456789'
    )
    script = """
        printf '%q\\n' "$S"; (set -x; : "$S") 2>&1; declare -p S; echo "$S" | base64; echo "$S" | base64 -w 64
        printf 'user:%s' "$S" | base64 -w 0
    """
    out = subprocess.run([bash, "-c", script], env={"S": secret}, capture_output=True, check=True).stdout
    clean = cut(secret.encode(), out, [len(out) // 2])
    for word in ("secret", "words", "breaks"):
        assert word.encode() not in clean.replace(MARK, b"")
    assert base64.b64encode(secret.encode())[20:40] not in clean
    assert clean.count(MARK) >= 6


def test_short_values() -> None:
    # Three bytes are in any text; four are cut as they are and encoded as a whole.
    assert forms([b"abc"]) == []
    found = forms([b"q7x!"])
    assert {b"q7x!", b"cTd4IQ==", b"q7x%21", b"71377821"} <= set(found)
    assert min(map(len, found)) >= VALUE_BYTES_MIN
    assert cut_text("a q7x! b", Sentinel([b"q7x!"])) == f"a {MARK.decode()} b"


def test_many_large_secrets_are_bounded() -> None:
    values = [bytes([number]) * 8000 for number in range(1, 60)]
    found = forms(values)
    assert set(values) <= set(found)
    assert sum(map(len, found)) <= FORMS_BYTES_MAX + sum(map(len, values))


def test_a_shell_quoted_value_keeps_nothing() -> None:
    value = "don't tell"
    assert cut_text(shlex.quote(value), Sentinel([value.encode()])) == f"'{MARK.decode()}'"
