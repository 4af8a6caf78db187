"""How the reference server misbehaves, on command. Pure."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Kind = Literal["none", "slow", "silent", "closed", "error", "redirect", "garbage", "lying"]
Garbage = Literal["text", "no_token", "endless", "cut", "deep"]
Algorithm = Literal["EdDSA", "none", "HS256", "ES256"]


class Fault(BaseModel):
    """What the server does to questions of agents until it is told otherwise, or `times` times.

    slow: `delay_s` passes before it answers. silent: it never answers. closed: the connection ends without
    an answer. error: it answers `status`. redirect: to another address. garbage: an answer of the kind
    `garbage`. lying: its tokens say `claims` instead (null leaves one out), are signed by `algorithm`, or
    with a key that is not the server's (`other_key`); `secret` is given in place of the cluster's; `replay`
    sends the token of an earlier answer again.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    fault: Kind = "none"
    times: Annotated[int, Field(ge=1)] | None = None
    delay_s: Annotated[float, Field(ge=0, le=3600)] = 15.0
    status: Annotated[int, Field(ge=400, le=599)] = 500
    garbage: Garbage = "text"
    claims: dict[str, Any] = {}
    algorithm: Algorithm = "EdDSA"
    other_key: bool = False
    secret: str | None = None
    replay: bool = False

    @property
    def lies(self) -> bool:
        """Whether the answer is made as usual and then changed."""
        return self.fault == "lying"
