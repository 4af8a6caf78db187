"""Gives the core another role, when the parent says so: its keys, and what messages say of their sender."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from chorus._core import Core, CoreError
from chorus.config.forms import A_WORD
from chorus.hub import Handler, HubInvalid, Request
from chorus.process.logs import Logger

METHOD: Final = "role"


def role_method(core: Core, log: Logger) -> Handler:
    """`role` {role}: that role counts from now on; "" is none. After an error the former one still does."""

    async def give(request: Request) -> dict[str, Any]:
        role = request.head.get("role")
        try:
            if not isinstance(role, str) or (role and A_WORD.parse(role) != role):
                raise ValueError(role)
        except ValueError:
            raise HubInvalid(f"role: expected {A_WORD.words}, or an empty text") from None
        try:
            await asyncio.to_thread(core.set_role, role or None)
        except CoreError as error:
            raise HubInvalid(f"role: {error}") from None
        log.info("the core has a role", role=role)
        return {}

    return give
