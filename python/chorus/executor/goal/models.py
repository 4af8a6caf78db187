"""What the process `mind` says of the models that this agent reaches goals with."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from chorus.config import AiSettings
from chorus.executor.goal.model_rest import ModelRest
from chorus.hub import Hub, HubError
from chorus.wire.task import TaskSubmission

_ASK_S: Final = 2.0
# The leader waits 5 s for an answer to an award; a process that was killed is back sooner.
_PATIENCE_S: Final = 3.0
_POLL_S: Final = 0.1
NO_PROVIDER: Final = "no model: provider none takes tasks with commands only"


async def said(hub: Hub, ai: AiSettings, rest: ModelRest) -> dict[str, Any]:
    """`models` and `model_reason` of this agent's profile; none while its models rest."""
    if why := NO_PROVIDER if ai.provider == "none" else rest.reason:
        return {"models": [], "model_reason": why}
    try:
        head = (await hub.call_service("mind", "models", timeout=_ASK_S)).head
    except HubError as error:
        return {"models": [], "model_reason": f"the process mind does not answer ({error.code})"}
    found = head.get("models")
    models = [model for model in found if isinstance(model, dict)] if isinstance(found, list) else []
    return {"models": models, "model_reason": str(head.get("reason") or "")}


async def why_not(hub: Hub, ai: AiSettings, task: TaskSubmission, rest: ModelRest) -> str:
    """Why this agent does not take a goal; empty when it does. Waits a moment for `mind` to be back."""
    if ai.provider == "none":
        return NO_PROVIDER
    if rest.reason:
        return f"no model answers here: {rest.reason}"
    loop = asyncio.get_running_loop()
    ends = loop.time() + _PATIENCE_S
    while not (known := await said(hub, ai, rest))["models"] and loop.time() < ends:  # noqa: ASYNC110
        await asyncio.sleep(_POLL_S)
    if not known["models"]:
        return f"no model answers here: {known['model_reason'] or 'nothing is known of why'}"
    for model in known["models"]:
        fits = task.required_model in ("", model.get("model"))
        if fits and (model.get("local") is True or not task.local_model):
            return ""
    wanted = task.required_model or "that stays on private addresses"
    return f"no model {wanted} answers here"
