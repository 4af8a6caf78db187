"""`chorusctl decision verify`: is this record what its author signed? A file is checked without any agent."""

from __future__ import annotations

import json
import re
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Final

from chorus.ctl.client import Client
from chorus.ctl.problems import CtlError
from chorus.decisions import DecisionError, verify

_HASH: Final = re.compile(r"[0-9a-f]{64}")
_TASK_IN_ADDRESS: Final = re.compile(r"ucxl://[^/]*:([0-9A-Z]{26})/")


def verify_decision(arguments: Namespace, connect: Callable[[], Client]) -> int:
    """FILE, hash or address. Exit code 0 when the record is genuine."""
    what: str = arguments.record
    path = Path(what)
    expected, author = None, None
    if not what.startswith("ucxl://") and path.is_file():
        content = path.read_bytes().rstrip(b"\n")
    else:
        with connect() as client:
            expected = what if _HASH.fullmatch(what) else find(client, what)
            answer = client.get_bytes(f"/api/v1/decisions/{expected}")
            content, author = answer.content, answer.headers.get("Chorus-Decision-Author")
    try:
        record = verify(content, expected_hash=expected)
    except DecisionError as error:
        raise CtlError(f"not genuine: {error}") from None
    if author is not None and author != record.author:
        raise CtlError(f"not genuine: the mesh names {author} as its author, {record.author} signed it")
    said = record.record
    if arguments.json:
        print(json.dumps({"genuine": True, "hash": record.hash, "author": record.author, "record": said}))
    else:
        print(f"genuine: signed by {record.author}")
        print(f"hash     {record.hash}")
        print(f"address  {said.get('address')}")
        print(f"decided  {said.get('summary')}")
    return 0


def find(client: Client, address: str) -> str:
    """The hash of the decision at an address."""
    task = _TASK_IN_ADDRESS.match(address)
    cursor = None
    while True:
        page = client.get("/api/v1/decisions", limit=500, cursor=cursor, task_id=task[1] if task else None)
        for item in page["items"]:
            if item["address"] == address:
                return str(item["hash"])
        cursor = page["next"]
        if cursor is None:
            raise CtlError(f"{address} is neither a file nor the hash or address of a decision of this mesh")
