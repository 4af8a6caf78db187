"""Stand-ins for what is around an agent: a scripted model, which says what a script tells it, and a reference
server for assignments.

A kit for tests, demonstrations and measurements. No process of an agent imports it; `chorusctl dev` starts
its servers.
"""

from chorus.dev.conversation import Conversation, Message
from chorus.dev.policies import POLICIES, Policy, policy
from chorus.dev.script import Call, Reply, Script, ScriptInvalid, load_scripts
from chorus.dev.server import ModelServer, Seen
from chorus.dev.whoosh import WhooshServer

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
    "WhooshServer",
    "load_scripts",
    "policy",
]
