"""Handlers by the name of their event."""

_handlers = {}


def register(event, handler, known=_handlers):
    """Has the handler called for each event of this name."""
    known.setdefault(event, []).append(handler)


def fire(event, known=_handlers):
    """Calls the handlers of the event; returns what they return."""
    return [handler() for handler in known.get(event, [])]


def clear():
    """Forgets all handlers."""
    global _handlers
    _handlers = {}
