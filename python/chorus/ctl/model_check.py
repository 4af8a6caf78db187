"""Whether agents of this environment would have a model that reaches goals: for `chorusctl doctor`.

Without one an agent works and takes tasks with commands only, so nothing here is needed.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import httpx

from chorus.config import AiSettings
from chorus.ctl.finding import Finding

TIMEOUT_S: Final = 5.0
NONE: Final = "no provider is set: agents take tasks with commands only, and no goals"


def models(ai: AiSettings) -> list[Finding]:
    """A finding for each provider in use."""
    if not ai.providers:
        remedy = "for goals set CHORUS_AI_PROVIDER and the model, such as ollama and OLLAMA_MODEL"
        return [Finding("model", False, NONE, remedy, needed=False)]
    return [_ollama(ai) if name == "ollama" else _resetdata(ai) for name in ai.providers if name != "none"]


def _ollama(ai: AiSettings) -> Finding:
    url, model = ai.ollama_endpoint, ai.ollama_model
    try:
        answer = _ask("POST", f"{url}/api/show", json={"model": model})
    except httpx.HTTPError as error:
        return _missing(
            f"ollama at {url} does not answer: {str(error) or type(error).__name__}",
            "start it (ollama serve), or set OLLAMA_ENDPOINT, or CHORUS_AI_PROVIDER=none",
        )
    if answer.status_code == httpx.codes.NOT_FOUND:
        return _missing(
            f"ollama at {url} has no model {model}",
            f"ollama pull {model}, or name one that `ollama list` shows in OLLAMA_MODEL",
        )
    if (found := _refused("ollama", url, answer, "OLLAMA_ENDPOINT")) is not None:
        return found
    capabilities = _object(answer).get("capabilities")
    if not isinstance(capabilities, list):
        # A server before 0.6.4.
        detail = f"ollama at {url} has {model}; whether it calls tools shows at the first goal"
        return Finding("model", True, detail, needed=False)
    if "tools" not in capabilities:
        return _missing(
            f"ollama at {url} has {model}, which calls no tools: it works through text, and less well",
            "take a model for which `ollama show` lists the capability tools",
        )
    return Finding("model", True, f"ollama at {url} has {model}, which calls tools", needed=False)


def _resetdata(ai: AiSettings) -> Finding:
    base, model = ai.resetdata_base_url, ai.resetdata_model
    url = base if "/" in base.partition("://")[2] else f"{base}/v1"
    key = ai.resetdata_api_key.get_secret_value()
    try:
        answer = _ask("GET", f"{url}/models", headers={"Authorization": f"Bearer {key}"})
    except httpx.HTTPError as error:
        why = f"resetdata at {url} does not answer: {str(error) or type(error).__name__}"
        return _missing(why, "look at RESETDATA_BASE_URL, and at the network")
    if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        why = f"resetdata at {url} does not take the key ({answer.status_code})"
        return _missing(why, "set RESETDATA_API_KEY to a key of that server")
    unlisted = answer.status_code in (httpx.codes.NOT_FOUND, httpx.codes.METHOD_NOT_ALLOWED)
    if not unlisted and (found := _refused("resetdata", url, answer, "RESETDATA_BASE_URL")) is not None:
        return found
    listed = _object(answer).get("data")
    names = {one.get("id") for one in listed if isinstance(one, dict)} if isinstance(listed, list) else set()
    if names and model not in names:
        why = f"resetdata at {url} has no model {model}"
        return _missing(why, "set RESETDATA_MODEL to one of its models")
    known = f"has {model}" if names else f"answers, and does not say whether it has {model}"
    detail = f"resetdata at {url} {known}; whether it calls tools shows at the first goal"
    return Finding("model", True, detail, needed=False)


def _ask(method: Literal["GET", "POST"], url: str, **more: Any) -> httpx.Response:
    """Asks as an agent does: without proxies of the environment, and without following redirects."""
    return httpx.request(method, url, timeout=TIMEOUT_S, trust_env=False, follow_redirects=False, **more)


def _refused(name: str, url: str, answer: httpx.Response, variable: str) -> Finding | None:
    """A finding for an answer that says nothing about models."""
    if answer.status_code == httpx.codes.OK and _object(answer):
        return None
    what = f"with status {answer.status_code}" if answer.status_code != httpx.codes.OK else "with no JSON"
    return _missing(f"{name} at {url} answers {what}", f"look at {variable}: is it that server's address?")


def _object(answer: httpx.Response) -> dict[str, Any]:
    try:
        said = answer.json()
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _missing(detail: str, remedy: str) -> Finding:
    return Finding("model", False, detail, remedy, needed=False)
