"""Asks supervisord to start a program again, over its Unix socket."""

from __future__ import annotations

import base64
import http.client
import socket
import xmlrpc.client
from pathlib import Path

RPC_TIMEOUT_S = 5.0


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("supervisor", timeout=RPC_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(RPC_TIMEOUT_S)
        self.sock.connect(str(self._path))


def start_program(path: Path, password: str, name: str) -> str:
    """Starts a program without waiting for it; why not, or an empty string."""
    body = xmlrpc.client.dumps((name, False), "supervisor.startProcess")
    secret = base64.b64encode(f"agent:{password}".encode()).decode()
    connection = _Connection(path)
    try:
        connection.request(
            "POST", "/RPC2", body.encode(), {"Content-Type": "text/xml", "Authorization": f"Basic {secret}"}
        )
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != http.client.OK:
            return f"supervisord answered {answer.status}"
        xmlrpc.client.loads(text)
    except xmlrpc.client.Fault as fault:
        return str(fault.faultString)
    except (OSError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__
    finally:
        connection.close()
    return ""
