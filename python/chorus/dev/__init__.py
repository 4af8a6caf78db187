"""A scripted model: a server that clients take for a real model's, and that says what a script tells it.

A kit for tests, demonstrations and measurements. No process of an agent imports it; `chorusctl dev model`
starts it.
"""

from chorus.dev.conversation import Conversation, Message
from chorus.dev.policies import POLICIES, Policy, policy
from chorus.dev.script import Call, Reply, Script, ScriptInvalid, load_scripts
from chorus.dev.server import ModelServer, Seen

__all__ = [
    "POLICIES",
    "Call",
    "Conversation",
    "Message",
    "ModelServer",
    "Policy",
    "Reply",
    "Script",
    "ScriptInvalid",
    "Seen",
    "load_scripts",
    "policy",
]
