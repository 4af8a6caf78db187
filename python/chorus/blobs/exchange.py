"""Blobs between members: `blobs.put`, `blobs.get` and `blobs.has` of the peer service `coordinator`, both
sides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import orjson

from chorus.blobs.ledger import OWN, BlobSpaceFull
from chorus.blobs.store import BLOB_MAX_BYTES, BlobMismatch, BlobStore, BlobTooLarge
from chorus.hub import (
    ByteStream,
    Hub,
    HubError,
    HubInvalid,
    HubNotFound,
    HubRefused,
    HubTampered,
    HubTimeout,
    HubTooLarge,
    Request,
    disk_error,
)

SERVICE = "coordinator"
# A holder that does not begin to answer within this is passed over for the next.
OPEN_TIMEOUT_S = 5.0
# A whole transfer; at the slowest link worth using (2 MB/s) the largest blob takes half of it.
TRANSFER_TIMEOUT_S = 600.0
_ANSWER_MAX_BYTES = 4096


async def serve_stream(store: BlobStore, request: Request, stream: ByteStream) -> None:
    """Serves `blobs.put` (bytes in, a JSON line out) and `blobs.get` (bytes out)."""
    sha256 = _named(request)
    if request.method == "blobs.get":
        if not store.has(sha256):
            raise HubNotFound(f"no blob {sha256} here")
        async for chunk in store.read(sha256):
            await stream.write(chunk)
    elif request.method == "blobs.put":
        if not await store.keep(sha256):
            try:
                async with asyncio.timeout(TRANSFER_TIMEOUT_S):
                    await store.put(stream, sha256=sha256, owner=request.peer or OWN)
            except BlobMismatch as error:
                raise HubTampered(str(error)) from None
            except BlobSpaceFull as error:
                raise HubRefused(f"limit: {error}") from None
            except BlobTooLarge as error:
                raise HubTooLarge(str(error)) from None
            except TimeoutError:
                raise HubTimeout("the blob did not arrive in time") from None
            except OSError as error:
                raise _disk(error) from error
        await stream.write(orjson.dumps({"sha256": sha256, "size": store.size(sha256)}) + b"\n")
    else:
        raise HubInvalid(f"no stream {request.method!r}")


def has(store: BlobStore, request: Request) -> dict[str, Any]:
    """Answers `blobs.has`."""
    sha256 = _named(request)
    there = store.has(sha256)
    return {"has": there, "size": store.size(sha256) if there else 0}


async def push(hub: Hub, store: BlobStore, sha256: str, peer: str) -> None:
    """Makes `peer` hold a copy; returns when it is on that member's disk. Raises HubError."""
    known = await hub.request(peer, SERVICE, "blobs.has", {"sha256": sha256})
    if known.head.get("has"):
        return
    async with await hub.open_stream(
        SERVICE, "blobs.put", {"sha256": sha256}, peer=peer, timeout=OPEN_TIMEOUT_S
    ) as stream:
        async for chunk in store.read(sha256):
            await stream.write(chunk)
        await stream.end()
        answer = orjson.loads(await stream.read_all(_ANSWER_MAX_BYTES))
    if answer.get("sha256") != sha256:
        raise HubTampered("the member stored other bytes")


async def fetch(hub: Hub, store: BlobStore, sha256: str, holders: Iterable[str]) -> None:
    """Brings the blob here from the first holder that has it; raises HubNotFound naming what each said, and
    HubInternal when it cannot be kept here.
    """
    if store.has(sha256):
        return
    said = []
    for peer in holders:
        if peer == hub.peer_id:
            continue
        try:
            async with asyncio.timeout(TRANSFER_TIMEOUT_S):
                async with await hub.open_stream(
                    SERVICE, "blobs.get", {"sha256": sha256}, peer=peer, timeout=OPEN_TIMEOUT_S
                ) as stream:
                    await stream.end()
                    await store.put(stream, sha256=sha256, limit=BLOB_MAX_BYTES)
                    return
        except (HubError, BlobMismatch, BlobTooLarge, TimeoutError) as error:
            said.append(f"{peer}: {error}")
        except BlobSpaceFull as error:
            # No other holder would help.
            raise disk_error(f"the blob was not taken: {error}") from None
        except OSError as error:
            raise _disk(error) from error
    raise HubNotFound(f"blob {sha256} from no holder: {'; '.join(said) or 'none is named'}")


def _disk(error: OSError) -> HubError:
    return disk_error(f"the blob was not taken: {error.strerror or error}")


def _named(request: Request) -> str:
    sha256 = str(request.head.get("sha256", ""))
    if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
        raise HubInvalid("sha256: give 64 lower-case hexadecimal digits")
    return sha256
