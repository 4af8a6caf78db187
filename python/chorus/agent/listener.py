"""supervisord's event listener: passes what happens to programs on to the parent, as lines into a FIFO.

Runs by path in a bare interpreter, without this package: it must be small, and the parent decides what to do.
"""

import os
import sys


def main() -> None:
    """Answers supervisord's events until it is gone, or the parent is."""
    try:
        # Without O_NONBLOCK this would wait for a reader, for ever when the parent has just been killed.
        events = os.open(sys.argv[1], os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    os.set_blocking(events, True)
    while True:
        os.write(1, b"READY\n")
        header = sys.stdin.buffer.readline()
        if not header:
            return
        tokens = dict(token.split(":", 1) for token in header.decode().split())
        payload = sys.stdin.buffer.read(int(tokens["len"]))
        # One write below PIPE_BUF: lines of an old and a new listener never mix.
        os.write(events, tokens["eventname"].encode() + b" " + payload.split(b"\n", 1)[0] + b"\n")
        os.write(1, b"RESULT 2\nOK")


if __name__ == "__main__":
    main()
