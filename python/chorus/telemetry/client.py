"""The BACKBEAT client of an agent: hears the pulse, keeps the beat, and sends claims and operations.

It lives in the api process, which does nothing that work waits for. Nothing here is waited for either: what
other processes note is queued and answered at once, and what the server does only decides how long it waits.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import orjson
from pydantic import TypeAdapter, ValidationError

from chorus.config import Settings
from chorus.hub import HubInvalid, Request, guard
from chorus.process import metrics
from chorus.process.logs import Logger
from chorus.telemetry.beat import Beat
from chorus.telemetry.claims import Note, Work, claim_of, ended_work
from chorus.telemetry.frames import CLAIM_TYPE, FrameInvalid, StatusClaim, read_beat
from chorus.telemetry.hlc import Clock
from chorus.telemetry.link import BodyRefused, Link, LinkFailed
from chorus.telemetry.operations import BATCH_MAX
from chorus.telemetry.outgoing import Kind, Outgoing
from chorus.telemetry.resources import Meter
from chorus.wire.schema import DEFERRED
from chorus.wire.times import rfc3339

# Waits between tries, doubled each time, with up to half of it as jitter.
AGAIN_FIRST_S: Final = 1.0
AGAIN_MAX_S: Final = 30.0
# A connection without a byte for so long is made anew, unless the pulse is slower.
SILENCE_S: Final = 90.0
# At the fastest pulse an agent says what it does once a second.
CLAIM_EVERY_S: Final = 1.0
_NOTES: Final = TypeAdapter(list[Note], config=DEFERRED)


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds that the client waits: first and longest between two tries, for a word of a silent server, and
    least between claims.
    """

    again_first_s: float = AGAIN_FIRST_S
    again_max_s: float = AGAIN_MAX_S
    silence_s: float = SILENCE_S
    claim_every_s: float = CLAIM_EVERY_S


def link_of(settings: Settings) -> Link:
    """The way to the server of these settings; only what it takes is loaded."""
    endpoint = settings.backbeat
    if endpoint.startswith("nats:"):
        from chorus.telemetry.nats_link import NatsLink

        return NatsLink(endpoint, settings.cluster_id)
    from chorus.telemetry.http_link import HttpLink

    return HttpLink(endpoint)


class Backbeat:
    """The client. `run` ends when it is cancelled."""

    def __init__(
        self,
        settings: Settings,
        link: Link,
        log: Logger,
        *,
        clock: Callable[[], float] = time.monotonic,
        pace: Pace | None = None,
    ) -> None:
        self._settings, self._link, self._log, self._clock = settings, link, log, clock
        self._pace = pace or Pace()
        self.beat = Beat(settings.cluster_id, clock())
        self.outgoing = Outgoing(self._count_dropped)
        self._hlc = Clock(settings.peer_id)
        self._work, self._meter = Work(), Meter()
        self._beats = asyncio.Event()
        self._claimed_at = float("-inf")
        # Why there is no pulse, and why nothing is sent; empty while all is well.
        self.pulse_trouble = "no beat has come yet"
        self.send_trouble = ""
        self._refused = ""

    async def run(self) -> None:
        """Listens, beats and sends."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(guard.lasting(self._listen, "answer"))
                group.create_task(guard.lasting(self._keep_beat, "answer"))
                group.create_task(guard.lasting(self._send, "answer"))
        finally:
            await self._link.close()

    async def note(self, request: Request) -> dict[str, Any]:
        """`backbeat.note` {dropped}, a JSON array of notes as payload -> {}."""
        try:
            notes = _NOTES.validate_json(request.payload)
        except ValidationError:
            raise HubInvalid("the payload is no array of notes") from None
        metrics.BACKBEAT_DROPPED.labels("operation").inc(max(0, int(request.head.get("dropped") or 0)))
        for note in notes[:BATCH_MAX]:
            self.take(note)
        return {}

    def take(self, note: Note) -> None:
        """Queues what an operation said; of work that has ended a last claim too."""
        self._work.take(note)
        said = note.model_dump(mode="json", exclude={"started_at"})
        body = {
            **said,
            "agent_id": self._settings.agent_id,
            "cluster_id": self._settings.cluster_id,
            "started_at": rfc3339(int(note.started_at * 1000)),
            "beat_index": self.beat.index,
            "hlc": self._hlc.tick(int(time.time())),
        }
        self._queue("operation", orjson.dumps(body))
        if ended_work(note):
            self._claim(claim_of(note))

    def health(self) -> dict[str, Any]:
        """What is known of the pulse and of what is sent; `ok` while both are well."""
        trouble = [text for text in (self.pulse_trouble, self.send_trouble) if text]
        tempo = f"{60 / self.beat.interval_s:g} beats per minute"
        source = "of the pulse" if self.beat.source == "pulse" else "of its own"
        return {
            "ok": not trouble,
            "detail": "; ".join([f"beat {self.beat.index} {source}, {tempo}", *trouble]),
            "source": self.beat.source,
            "beat_index": self.beat.index,
            "queued": len(self.outgoing),
            "dropped": self.outgoing.lost,
        }

    # The pulse

    async def _listen(self) -> None:
        wait = self._pace.again_first_s
        while True:
            heard = self.beat.frame
            try:
                await self._link.listen(self)
                why = "the server ended the stream of beats"
            except LinkFailed as failed:
                why = str(failed)
            self._no_pulse(why)
            self.beat.lost(self._clock())
            self._beats.set()
            if self.beat.frame is not heard:
                wait = self._pace.again_first_s
            await asyncio.sleep(wait * (1 + random.random() / 2))
            wait = min(2 * wait, self._pace.again_max_s)

    def hear(self, data: bytes) -> None:
        """Takes one frame, whatever it is."""
        try:
            frame = read_beat(data)
        except FrameInvalid as invalid:
            self._drop("malformed", str(invalid))
            return
        before, source = self.beat.index, self.beat.source
        if (why := self.beat.hear(frame, self._clock())) is not None:
            self._drop(why, why.replace("_", " "))
            return
        metrics.BACKBEAT_FRAMES.labels("accepted").inc()
        metrics.BACKBEAT_PULSE.set(1)
        self.pulse_trouble = ""
        self._hlc.hear(frame.hlc, int(time.time()))
        if source == "own" or frame.beat_index != before + 1:
            self._log.info("in step with the pulse", beat=frame.beat_index, tempo_bpm=frame.tempo_bpm)
        self._at_beat()
        self._beats.set()

    def too_large(self) -> None:
        """Counts a frame that was left out."""
        self._drop("too_large", "longer than a frame may be")

    def silence_s(self) -> float:
        """How long the server may say nothing before it is called anew."""
        return max(self._pace.silence_s, 2 * self.beat.interval_s)

    def _drop(self, outcome: str, why: str) -> None:
        metrics.BACKBEAT_FRAMES.labels(outcome).inc()
        self._log.info("a beat frame was dropped", outcome=outcome, why=why)

    def _no_pulse(self, why: str) -> None:
        if self.pulse_trouble != why:
            self._log.info("no pulse; keeping an own beat", why=why)
        self.pulse_trouble = why
        metrics.BACKBEAT_PULSE.set(0)

    async def _keep_beat(self) -> None:
        while True:
            if self.beat.tick(self._clock()):
                if not self.pulse_trouble:
                    self._no_pulse("the pulse is late")
                self._at_beat()
            self._beats.clear()
            try:
                async with asyncio.timeout(max(0.01, self.beat.due - self._clock())):
                    await self._beats.wait()
            except TimeoutError:
                continue

    # What is said

    def _at_beat(self) -> None:
        now = self._clock()
        if now - self._claimed_at < self._pace.claim_every_s:
            return
        self._claimed_at = now
        used = self._meter.read()
        for claim in self._work.claims():
            self._claim({**claim, "resources": used})

    def _claim(self, said: dict[str, Any]) -> None:
        claim = StatusClaim(
            agent_id=self._settings.agent_id,
            beat_index=self.beat.index,
            hlc=self._hlc.tick(int(time.time())),
            **said,
        )
        body = claim.model_dump(mode="json", exclude_none=True)
        # Frames name their type as the server's do: one that leaves it out may refuse it.
        frame = self.beat.frame
        if frame is not None and "type" not in frame.model_fields_set:
            del body["type"]
        else:
            body["type"] = CLAIM_TYPE
        self._queue("status", orjson.dumps(body))

    def _queue(self, kind: Kind, body: bytes) -> None:
        self.outgoing.put(kind, body)
        metrics.BACKBEAT_QUEUED.set(len(self.outgoing))

    def _count_dropped(self, kind: Kind) -> None:
        metrics.BACKBEAT_DROPPED.labels(kind).inc()

    async def _send(self) -> None:
        wait = self._pace.again_first_s
        while True:
            item = await self.outgoing.first()
            kind, body = item
            try:
                await self._link.send(kind, body)
            except LinkFailed as failed:
                if not self.send_trouble:
                    self._log.info("telemetry waits to be sent", why=str(failed))
                self.send_trouble = str(failed)
                metrics.BACKBEAT_SENT.labels(kind, "failed").inc()
                await asyncio.sleep(wait * (1 + random.random() / 2))
                wait = min(2 * wait, self._pace.again_max_s)
                continue
            except BodyRefused as refused:
                metrics.BACKBEAT_SENT.labels(kind, "refused").inc()
                self.send_trouble = str(refused)
                if self._refused != self.send_trouble:
                    self._refused = self.send_trouble
                    self._log.warning("the BACKBEAT server refuses what it is sent", why=self._refused)
            else:
                metrics.BACKBEAT_SENT.labels(kind, "sent").inc()
                self.send_trouble = ""
            wait = self._pace.again_first_s
            self.outgoing.done(item)
            metrics.BACKBEAT_QUEUED.set(len(self.outgoing))
