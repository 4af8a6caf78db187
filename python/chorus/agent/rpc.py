"""Asks supervisord to start a program again, over its Unix socket."""

from __future__ import annotations

import base64
import socket
from pathlib import Path

RPC_TIMEOUT_S = 5.0


def start_program(path: Path, password: str, name: str) -> str:
    """Starts a program without waiting for it; why not, or an empty string."""
    # Not at the top: few agents ever ask, and the parent's memory is not to grow by them.
    import http.client
    import xmlrpc.client

    body = xmlrpc.client.dumps((name, False), "supervisor.startProcess")
    secret = base64.b64encode(f"agent:{password}".encode()).decode()
    connection = http.client.HTTPConnection("supervisor")
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.sock.settimeout(RPC_TIMEOUT_S)
    try:
        connection.sock.connect(str(path))
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
