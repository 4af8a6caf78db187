"""A task's context: the leader chooses earlier decisions that matter, the asker reads and verifies them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from typing import Any

from chorus import decisions
from chorus.config import Settings
from chorus.coordinator import SERVICE
from chorus.coordinator.follower import Applied, Follower
from chorus.curator import bundle
from chorus.curator.bundle import Choice
from chorus.curator.feed import Feed
from chorus.hub import Hub, HubError, HubInvalid, HubNotFound, Request
from chorus.process import Process
from chorus.table.reader import TableReader
from chorus.table.records import Ballot, Body, Mesh, Task
from chorus.wire.ids import is_id

# Many tasks of one kind at once ask for the same; so long an answer may be given again.
KEPT_S = 1.0
KEPT_MAX = 256
ASK_TIMEOUT_S = 5.0
BUDGET_MAX_TOKENS = 32_000


class Curating:
    """The coordinator's part in the curator: feeds the index, answers for contexts."""

    def __init__(self, process: Process, hub: Hub, follower: Follower) -> None:
        settings = process.settings
        self._process, self._hub, self._follower, self._store = process, hub, follower, follower.store
        self._table = TableReader(follower.store.path)
        self._keys = _keys_of(settings)
        self.feed = Feed(hub, self._table, settings.paths.curator_db, self._whose, process.log)
        self._asking = asyncio.Lock()
        self._kept: dict[Any, tuple[float, list[Choice]]] = {}
        follower.listen(self._on_applied)

    async def run(self) -> None:
        """Feeds the index until cancelled."""
        await self.feed.run()

    def _whose(self) -> str:
        """What decides which records this agent can read: with another role or other keys they are others."""
        return f"{self._process.assignments.current.role}{self._keys}"

    def forget(self) -> None:
        """Answers anew what was answered a moment ago."""
        self._kept.clear()

    def _on_applied(self, batch: list[Applied]) -> None:
        if any(applied.entry.type in ("decision", "version", "found") for applied in batch):
            self.feed.wake()

    async def choose(self, request: Request) -> dict[str, Any]:
        """`context.choose` {task_id} -> {items: [{hash, address, why}]}: what matters, by the index here."""
        return {"items": [_as_head(choice) for choice in await self._choose(_task_id(request))]}

    async def context(self, request: Request) -> dict[str, Any]:
        """`context` {task_id, budget_tokens?} -> {by, items, tokens, left_out}: each record verified."""
        task_id = _task_id(request)
        budget = request.head.get("budget_tokens")
        budget = bundle.BUDGET_TOKENS if not isinstance(budget, int) else min(budget, BUDGET_MAX_TOKENS)
        by, choices = await self._ask(task_id)
        read = await asyncio.gather(*(self._read(choice) for choice in choices[: bundle.ITEMS_MAX]))
        items, left_out, used = [], [], 0
        for choice, (item, why_not) in zip(choices, read, strict=False):
            if item is None:
                left_out.append({"hash": choice.hash, "address": choice.address, "reason": why_not})
            elif used + item["tokens"] > budget:
                left_out.append({"hash": choice.hash, "address": choice.address, "reason": "over the budget"})
            else:
                used += item["tokens"]
                items.append(item)
        return {"task_id": task_id, "by": by, "items": items, "tokens": used, "left_out": left_out}

    async def _ask(self, task_id: str) -> tuple[str, list[Choice]]:
        """Who chose, and what. Without a leader that answers this agent's own index does."""
        mesh = self._store.get(Mesh, "mesh")
        leader = mesh.leader if mesh is not None else None
        if leader is not None and leader != self._hub.peer_id:
            try:
                reply = await self._hub.request(
                    leader, SERVICE, "context.choose", {"task_id": task_id}, timeout=ASK_TIMEOUT_S
                )
                return leader, _choices(reply.head)
            except (HubError, ValueError) as error:
                self._process.log.info("the leader gave no context; choosing here", error=str(error))
        return self._hub.peer_id, await self._choose(task_id)

    async def _choose(self, task_id: str) -> list[Choice]:
        task, body = self._store.get(Task, task_id), self._store.get(Body, task_id)
        if task is None or body is None:
            raise HubNotFound(f"no task {task_id} is known here")
        matter = bundle.matter_of(body.task)
        key, now = (matter, task.decision), time.monotonic()
        kept = self._kept.get(key)
        if kept is not None and now - kept[0] < KEPT_S:
            return kept[1]
        # One at a time: what agents ask for beside their work must not take the leader from its own.
        async with self._asking:
            candidates = await asyncio.to_thread(self.feed.reader.matching, matter)
        choices = bundle.choose(candidates, own=task.decision, rejected=self._rejected)
        if len(self._kept) >= KEPT_MAX:
            self._kept.clear()
        self._kept[key] = (now, choices)
        return choices

    def _rejected(self, hash: str) -> bool:
        ballot = self._store.get(Ballot, hash)
        return ballot is not None and ballot.state == "rejected"

    async def _read(self, choice: Choice) -> tuple[dict[str, Any] | None, str]:
        row = self._table.decision(choice.hash)
        if row is None:
            return None, "not listed here"
        try:
            verified = await decisions.fetch(self._hub, row.hash, listed=row, hints=(row.author,))
        except decisions.DecisionError as error:
            self._process.log.warning("a record is not believed", hash=row.hash, error=error.reason)
            return None, f"not genuine: {error.reason}"
        except HubError as error:
            return None, "sealed for others" if error.code == "not_permitted" else error.message
        text = bundle.excerpt(verified.record)
        record = verified.record
        item = {
            "hash": row.hash,
            "address": row.address,
            "kind": row.kind,
            "agent_id": record["agent"]["agent_id"],
            "author": verified.author,
            "task_id": record["task_id"],
            "title": record["title"],
            "outcome": record["decided"]["outcome"],
            "created_at": record["created_at"],
            "text": text,
            "tokens": bundle.tokens(text),
            "why": list(choice.why),
        }
        return item, ""


def _keys_of(settings: Settings) -> str:
    """Which keys the core of this agent has, besides those of its role; they stand from its start."""
    keys = settings.role_keys_file
    with contextlib.suppress(OSError):
        content = keys.read_bytes() if keys is not None else b""
        return f" {sorted(settings.role_grants)} {hashlib.sha256(content).hexdigest()}"
    return ""


def _choices(head: dict[str, Any]) -> list[Choice]:
    """What another agent chose; it is only believed to name records. Raises ValueError."""
    items = head.get("items")
    if not isinstance(items, list):
        raise ValueError("the answer has no items")
    return [
        Choice(
            str(item["hash"])[:64],
            str(item.get("address"))[:1024],
            tuple(str(why)[:300] for why in list(item.get("why") or ())[:8]),
        )
        for item in items[: bundle.ITEMS_MAX]
        if isinstance(item, dict) and isinstance(item.get("hash"), str)
    ]


def _as_head(choice: Choice) -> dict[str, Any]:
    return {"hash": choice.hash, "address": choice.address, "why": list(choice.why)}


def _task_id(request: Request) -> str:
    task_id = request.head.get("task_id")
    if not is_id(task_id):
        raise HubInvalid("task_id: give 26 upper-case letters and digits")
    return str(task_id)
