"""The wires to models: Ollama's own and the one of OpenAI, as classes of the model library.

The library is imported by `streamed`, `conversation`, `ollama` and `openai` alone, which `provider` loads
when a model is asked for the first time.
"""
