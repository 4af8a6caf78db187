"""Settings of models: providers, and how much of them an agent may use."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from chorus.config import forms
from chorus.config.masked import SecretText
from chorus.config.setting import Group, Setting

ProviderName = Literal["none", "ollama", "resetdata"]

STEPS_MAX: Final = 10_000
TOKENS_MAX: Final = 999_999_999
# With less, prompt and tools leave no room to work in.
CONTEXT_MIN: Final = 2_048
CONTEXT_MAX: Final = 10_000_000

_PROVIDER = forms.one_of("none", "ollama", "resetdata")


@dataclass(frozen=True, kw_only=True)
class AiSettings(Group):
    """Which models the agent works with, and how much of them it may use."""

    title = "Models"

    provider: Annotated[
        ProviderName,
        Setting(
            "CHORUS_AI_PROVIDER",
            _PROVIDER,
            "ollama",
            "Who answers for models; `resetdata` is any server with OpenAI's chat API. With `none` the agent "
            "takes only tasks with commands ([mind.md](mind.md)).",
        ),
    ]
    # Asked when the provider is away.
    fallback: Annotated[
        ProviderName,
        Setting(
            "CHORUS_AI_FALLBACK", _PROVIDER, "none", "The provider that is asked while the first one is away."
        ),
    ]
    # Of one run of a goal whose task asks for nothing else.
    max_steps: Annotated[
        int,
        Setting(
            "CHORUS_AI_MAX_STEPS",
            forms.whole(1, STEPS_MAX),
            "25",
            "Steps of one run of a goal, unless its task says otherwise.",
        ),
    ]
    max_tokens: Annotated[
        int,
        Setting(
            "CHORUS_AI_MAX_TOKENS",
            forms.whole(1, TOKENS_MAX, f"a whole number of tokens from 1 to {TOKENS_MAX}"),
            "1000000",
            "Tokens of one run, read and written, unless its task says otherwise.",
        ),
    ]
    # None: no limit.
    max_usd: Annotated[
        float | None,
        Setting(
            "CHORUS_AI_MAX_USD",
            forms.number(0.001, 1_000_000, "a number of USD of at least 0.001, such as 2 or 0.5"),
            help="US dollars of one run, unless its task says otherwise.",
            otherwise="no limit",
        ),
    ]
    # Of one call.
    timeout_s: Annotated[
        float,
        Setting("CHORUS_AI_TIMEOUT", forms.duration("1s"), "120s", "How long one call of a model may take."),
    ]
    # Tokens of question and reply together; None: what is usual for the provider.
    context: Annotated[
        int | None,
        Setting(
            "CHORUS_AI_CONTEXT",
            forms.whole(
                CONTEXT_MIN, CONTEXT_MAX, f"a whole number of tokens from {CONTEXT_MIN} to {CONTEXT_MAX}"
            ),
            help="Tokens of a question with its reply, at most what the model has.",
            otherwise="32768; for `resetdata` 60000",
        ),
    ]
    # Model to USD for a million tokens in, and out.
    prices: Annotated[
        dict[str, tuple[float, float]],
        Setting(
            "CHORUS_AI_PRICES",
            forms.PRICES,
            help="What models cost; without a price there are no costs in results.",
        ),
    ]
    # What this agent may spend on a day (UTC); None: no limit.
    daily_usd: Annotated[
        float | None,
        Setting(
            "CHORUS_AI_DAILY_USD",
            forms.number(0, 1_000_000, "a number of USD such as 5 or 0.5"),
            help="What this agent may spend on a day (UTC).",
            otherwise="no limit",
        ),
    ]
    prompts_dir: Annotated[
        Path,
        Setting(
            "CHORUS_PROMPTS_DIR",
            forms.folder(),
            "/prompts",
            "Prompts of the roles, `*.yaml`, and `defaults.md` ([prompts.md](prompts.md)).",
        ),
    ]
    ollama_endpoint: Annotated[
        str, Setting("OLLAMA_ENDPOINT", forms.ENDPOINT, "http://localhost:11434", "Where Ollama answers.")
    ]
    ollama_model: Annotated[
        str, Setting("OLLAMA_MODEL", forms.MODEL, "llama3.1:8b", "The model that Ollama is asked for.")
    ]
    resetdata_api_key: Annotated[
        SecretText,
        Setting("RESETDATA_API_KEY", forms.API_KEY, help="The key that the provider gave out.", secret=True),
    ]
    resetdata_base_url: Annotated[
        str, Setting("RESETDATA_BASE_URL", forms.ENDPOINT, help="Where the provider answers.")
    ]
    resetdata_model: Annotated[
        str, Setting("RESETDATA_MODEL", forms.MODEL, help="The model that the provider is asked for.")
    ]

    @property
    def providers(self) -> tuple[ProviderName, ...]:
        """Those in use, the first choice first; empty when there is none."""
        return tuple(name for name in (self.provider, self.fallback) if name != "none")

    def model_of(self, provider: ProviderName) -> str:
        """The model that is used at a provider."""
        return self.ollama_model if provider == "ollama" else self.resetdata_model
