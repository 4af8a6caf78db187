"""Whatever answers in KACHING's place, there is no licence, and nothing else happens."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chorus.license.client import ANSWER_MAX_BYTES, Answer, _granted, _raise_status
from chorus.license.refusals import Denied, LicenceRefused, NoAnswer, Reason
from chorus.testing.anything import examples

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
WITH_FIELDS = st.dictionaries(
    st.sampled_from(["code", "detail", "error", "token", "cluster_secret", "message"]), JSON
)
BODIES = st.binary(max_size=200) | (JSON | WITH_FIELDS).map(lambda said: json.dumps(said).encode())


@examples
@given(BODIES)
def test_an_answer_has_a_token_or_is_garbage(body: bytes) -> None:
    with contextlib.suppress(NoAnswer):
        assert isinstance(_granted(body), Answer)


@examples
@given(st.integers(300, 999), BODIES)
def test_any_other_status_is_a_refusal(status: int, body: bytes) -> None:
    with pytest.raises(LicenceRefused) as caught:
        _raise_status(status, body)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000
    if not 400 <= status < 500:
        assert isinstance(caught.value, NoAnswer)


@pytest.mark.parametrize(
    ("status", "body", "reason", "kind"),
    [
        (403, b'{"error": "license suspended"}', Reason.SUSPENDED, Denied),
        (423, b"suspended", Reason.SUSPENDED, Denied),
        (402, b'{"no": "words"}', Reason.REFUSED, Denied),
        (404, b'{"detail": "Not Found"}', Reason.UNKNOWN, Denied),
        (404, b"<html>404 Not Found</html>", Reason.SERVER_ERROR, NoAnswer),
        (403, b"<html>forbidden</html>", Reason.SERVER_ERROR, NoAnswer),
        (409, b'{"code": "replayed_nonce"}', Reason.REPLAYED_NONCE, NoAnswer),
        (429, b'{"error": "too many agents"}', Reason.SERVER_ERROR, NoAnswer),
        (500, b'{"error": "license suspended"}', Reason.SERVER_ERROR, NoAnswer),
        (302, b"", Reason.SERVER_ERROR, NoAnswer),
        (403, b"x" * ANSWER_MAX_BYTES, Reason.SERVER_ERROR, NoAnswer),
    ],
)
def test_a_no_is_kachings_and_no_proxys(
    status: int, body: bytes, reason: Reason, kind: type[LicenceRefused]
) -> None:
    with pytest.raises(LicenceRefused) as caught:
        _raise_status(status, body)
    assert (caught.value.reason, type(caught.value)) == (reason, kind)
