"""What BACKBEAT says and hears, as strict models: unknown fields and values out of bounds are refused."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, ConfigDict, Field, ValidationError

from chorus.wire.schema import Schema

BEAT_TYPE: Final = "backbeat.beatframe.v1"
CLAIM_TYPE: Final = "backbeat.statusclaim.v1"
# A frame says a dozen values; the rest is room for its metadata.
FRAME_MAX_BYTES: Final = 64 * 1024
NOTES_MAX_CHARS: Final = 256
BEATS_LEFT_MAX: Final = 1000

State = Literal[
    "idle", "planning", "executing", "reviewing", "completed", "failed", "blocked", "helping"
]  # fmt: skip


def _moment(text: str) -> str:
    """A time of RFC 3339."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("expected a time such as 2026-01-02T03:04:05Z") from None
    if "T" not in text.upper() or at.tzinfo is None:
        raise ValueError("expected date, time and offset such as 2026-01-02T03:04:05Z")
    return text


Hlc = Annotated[str, Field(pattern=r"^[0-9a-f]{4}:[0-9a-f]{4}:[0-9a-f]{4}$")]
Index = Annotated[int, Field(ge=0)]
Moment = Annotated[str, AfterValidator(_moment)]
ClusterId = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
TaskId = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_:-]{1,128}$")]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Frame(Schema):
    """Common to both."""

    model_config = ConfigDict(extra="forbid", strict=True)


class BeatFrame(Frame):
    """One beat of a cluster's pulse. `tempo_bpm` is in beats per minute."""

    # A server may leave its name out: the page of fields does not list it.
    type: Literal["backbeat.beatframe.v1"] = BEAT_TYPE
    cluster_id: ClusterId
    beat_index: Index
    downbeat: bool
    phase: Literal["plan", "execute", "review"]
    hlc: Hlc
    deadline_at: Moment
    tempo_bpm: Annotated[float, Field(ge=0.1, le=1000, allow_inf_nan=False)]
    window_id: Annotated[str, Field(pattern=r"^[0-9a-fA-F]{32}$")]
    metadata: dict[str, Any] | None = None

    @property
    def interval_s(self) -> float:
        """Seconds between two beats."""
        return 60.0 / self.tempo_bpm


class Resources(Frame):
    """What the machine used since the claim before; memory is what is in use now."""

    cpu_percent: Amount = 0.0
    memory_mb: Amount = 0.0
    disk_io_ops: Amount = 0.0
    network_kb: Amount = 0.0


class StatusClaim(Frame):
    """What an agent says it does at a beat."""

    type: Literal["backbeat.statusclaim.v1"] = CLAIM_TYPE
    agent_id: Annotated[str, Field(min_length=1, max_length=128)]
    # Without one the claim is about the agent itself.
    task_id: TaskId | None = None
    beat_index: Index
    state: State
    beats_left: Annotated[int, Field(ge=0, le=BEATS_LEFT_MAX)] = 0
    progress: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0
    notes: Annotated[str, Field(max_length=NOTES_MAX_CHARS)] = ""
    hlc: Hlc
    resources: Resources = Resources()
    dependencies: tuple[TaskId, ...] = Field(default=(), strict=False)
    metadata: dict[str, Any] = Field(default_factory=dict)


class FrameInvalid(ValueError):
    """A frame that does not fit: the field and what is wrong with it, never the value."""


def read_beat(data: bytes) -> BeatFrame:
    """Raises FrameInvalid for anything but one BeatFrame."""
    if len(data) > FRAME_MAX_BYTES:
        raise FrameInvalid(f"longer than {FRAME_MAX_BYTES} bytes")
    try:
        return BeatFrame.model_validate_json(data)
    except ValidationError as error:
        raise FrameInvalid(said_of(error)) from None


def said_of(error: ValidationError) -> str:
    """The first mistake, by its field and without its value."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    field = ".".join(map(str, first["loc"]))[:100]
    # What the parser of JSON says holds places, not content.
    return f"{field}: {first['msg']}" if field else str(first["msg"])
