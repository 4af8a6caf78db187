"""Looks again and again whether the models are there and the files of prompts can be used, and says so."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from chorus.mind.models import Models
from chorus.mind.role_prompts import DEFAULT_ROLE, RolePrompts
from chorus.process.logs import Logger

# A look at Ollama costs it next to nothing; one at resetdata is one of its calls a minute.
LOOK_S: Final = 15.0
LOOK_AWAY_S: Final = 3.0
LOOK_LIMITED_S: Final = 60.0


class Watch:
    """What is known of models and prompts."""

    def __init__(self, models: Models, prompts: RolePrompts, log: Logger) -> None:
        self._models = models
        self._prompts = prompts
        self._log = log
        # Which providers are on this machine or in a private network, as of the last look.
        self._local: dict[str, bool] = {}
        self._problems: tuple[str, ...] = ()

    async def run(self) -> None:
        """Looks until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(self._next_s())

    async def look(self) -> None:
        """One look; what changed is logged."""
        self._look_at_prompts()
        before = self.models, self.reason
        await self._models.look()
        self._local = {one.name: await one.local() for one in self._models.providers}
        if before != (self.models, self.reason):
            names = [f"{one['provider']}: {one['model']}" for one in self.models]
            log = self._log.info if not self.reason else self._log.warning
            log("models", there=names, **({"reason": self.reason} if self.reason else {}))

    def _look_at_prompts(self) -> None:
        self._prompts.prompt(DEFAULT_ROLE)
        if self._prompts.problems != self._problems:
            self._problems = self._prompts.problems
            for problem in self._problems:
                self._log.warning("a file of prompts cannot be used", problem=problem)

    @property
    def models(self) -> list[dict[str, Any]]:
        """Those that answer now: each provider, model, and whether it is local."""
        return [
            {"provider": one.name, "model": one.model, "local": self._local[one.name]}
            for one in self._models.providers
            if one.there and one.name in self._local and not self._models.accounts.exhausted(one.model)
        ]

    @property
    def reason(self) -> str:
        """Why those are away that are; "" when all are there."""
        away = (
            (one, "today's CHORUS_AI_DAILY_USD is spent" if one.there else one.detail)
            for one in self._models.providers
            if not one.there or self._models.accounts.exhausted(one.model)
        )
        return "; ".join(f"{one.name}: {one.model} is away: {why}" for one, why in away)

    def health(self) -> dict[str, Any]:
        """What the process says of itself. It is well while any model answers: goals go to that one."""
        providers = self._models.providers
        there = [
            f"{one.name}: {one.model} is there"
            for one in providers
            if one.there and not self._models.accounts.exhausted(one.model)
        ]
        detail = "; ".join(filter(None, [*there, self.reason, *self._problems]))
        return {
            "ok": bool(there),
            "detail": detail,
            "models": self.models,
            "prompt_problems": list(self._problems),
        }

    def _next_s(self) -> float:
        limited = any(one.name == "resetdata" for one in self._models.providers)
        if len(self.models) < len(self._models.providers):
            return LOOK_S if limited else LOOK_AWAY_S
        return LOOK_LIMITED_S if limited else LOOK_S
