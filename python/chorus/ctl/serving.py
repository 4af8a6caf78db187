"""How a server of `chorusctl dev` is run: it says where it answers, and serves until it is interrupted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from chorus.ctl.problems import CtlError
from chorus.ctl.terminal import say, say_json
from chorus.dev.local_server import LocalServer

Server = TypeVar("Server", bound=LocalServer)


def serve(
    make: Callable[[], Server],
    port: int,
    told: Callable[[Server], tuple[dict[str, Any], Sequence[str]]],
    *,
    as_json: bool,
) -> int:
    """Returns when the server has stopped. `told`: what is said of it, as JSON and as lines for people.

    Raises CtlError for a port that is taken.
    """
    try:
        server = make()
    except OSError as error:
        raise CtlError(f"port {port}: {error.strerror}; --port 0 takes a free one") from None
    with server:
        said, lines = told(server)
        if as_json:
            say_json(said, flush=True)
        else:
            for line in lines:
                say(line)
            say("Ctrl-C ends it.", flush=True)
        server.wait()
    return 0
