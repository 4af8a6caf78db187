"""KACHING over https: only a server whose certificate the machine trusts is asked."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import BaseServer

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from chorus.core import Identity
from chorus.license.client import Answer, Kaching
from chorus.license.refusals import NoAnswer, Reason

ASKED: list[bytes] = []


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        ASKED.append(self.rfile.read(int(self.headers["Content-Length"])))
        body = b'{"token": "t", "more": 1}'
        self.send_response(201)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        return


def certificate(folder: Path) -> Path:
    """A file with a key and its certificate for 127.0.0.1."""
    key = Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "kaching")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, None)
    )
    path = folder / "server.pem"
    path.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + made.public_bytes(Encoding.PEM)
    )
    (folder / "ca.pem").write_bytes(made.public_bytes(Encoding.PEM))
    return path


async def test_only_a_trusted_certificate_counts(
    tmp_path: Path, serve: Callable[[BaseServer], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate(tmp_path))
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    serve(server)
    url, identity = f"https://127.0.0.1:{server.server_address[1]}", Identity.generate()
    ASKED.clear()
    with pytest.raises(NoAnswer) as caught:
        await Kaching(url, identity.peer_id, identity.sign).renew("lease", "n")
    assert caught.value.reason is Reason.UNREACHABLE
    assert "certificate" in str(caught.value)
    assert ASKED == []
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    answer = await Kaching(url, identity.peer_id, identity.sign).renew("lease", "n")
    assert answer == Answer("t")
    assert len(ASKED) == 1
