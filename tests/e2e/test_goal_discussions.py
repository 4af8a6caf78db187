"""Three agents talk goals over; a fourth, which has no model and takes no part, finds what came of it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import pytest

from chorus.dev import Call, Conversation, ModelServer, Policy, Reply, Script, policy
from chorus.hmmm.ids import session_id
from chorus.wire.ids import new_id

from .mesh_checks import leading, until_whole, voters
from .sites import Site, sites
from .test_run import until

pytestmark = pytest.mark.e2e

# Each agent's model has another name, by which a goal chooses the agent that works on it, and with it how
# long its discussion lasts. Long is what it is not to wait for.
LONG: Final = "120s"
AGENTS: Final = {
    "patient": {"CHORUS_HMMM_PERIOD": LONG, "CHORUS_HMMM_ESCALATION": "1h"},
    "hasty": {"CHORUS_HMMM_PERIOD": "1s", "CHORUS_HMMM_ESCALATION": "1h"},
    "unanswered": {"CHORUS_HMMM_PERIOD": LONG, "CHORUS_HMMM_ESCALATION": "1s"},
}
# How a mind asks the owner of a plan, in `chorus.mind.words`.
OWNER: Final = "The plan is yours"
PLAN: Final = "Write it at once."


def write(path: str) -> Reply:
    return Reply(calls=(Call(tool="write", arguments={"path": path, "text": "x\n"}),))


FINISH: Final = Reply(calls=(Call(tool="finish", arguments={"summary": "It is written."}),))
STEPS: Final = (write("done.txt"), FINISH)


def plays(*said: tuple[str, str, str], advise: str = "") -> Policy:
    """A model that says in discussions what fits first: the words looked for, the intent, the message."""
    discuss = [{"when": [when], "intent": intent, "message": message} for when, intent, message in said]
    script = {"plan": PLAN, "replies": STEPS, "discuss": discuss, "advise": advise}
    return policy("oracle", [Script.model_validate(script)])


@dataclass(frozen=True)
class Talks:
    """The agents by the names of their models, and the fourth."""

    agents: dict[str, Site]
    models: dict[str, ModelServer]
    spectator: Site

    def play(self, how: Policy) -> None:
        for model in self.models.values():
            model.policy = how

    def leader(self) -> str:
        """The name of the agent that leads the mesh, which is not the spectator any more."""
        everyone = [*self.agents.values(), self.spectator]
        names = {site.peer: name for name, site in self.agents.items()}

        def led() -> str | None:
            if (peer := leading(everyone)) == self.spectator.peer:
                voter = next(one["agent_id"] for one in voters(self.spectator) if one["peer_id"] != peer)
                self.spectator.ask("POST", "/api/v1/election/transfer", json={"to": voter})
            return names.get(peer)

        return str(until(led))

    def submit(self, title: str, model: str, **more: Any) -> str:
        """Has the agent with this model reach a goal; the task's id."""
        task = {
            "task_id": new_id(), "title": title, "required_model": model, "max_attempts": 1, **more
        }  # fmt: skip
        answer = self.spectator.ask("POST", "/api/v1/tasks", files={"task": (None, json.dumps(task))})
        assert answer.status_code == 201, answer.text
        return str(task["task_id"])

    def completed(self, task_id: str) -> dict[str, Any]:
        """The result's report of a goal, which was reached."""
        path = f"/api/v1/tasks/{task_id}"
        task = until(lambda: (said := self.spectator.get(path)) and said.get("result") and said)
        assert task["state"] == "completed", task
        report: dict[str, Any] = task["result"]["goal"]
        return report

    def journal(self, task_id: str) -> list[dict[str, Any]]:
        path = f"/api/v1/tasks/{task_id}/artifacts/transcript.jsonl"
        return [json.loads(line) for line in self.spectator.ask("GET", path).content.splitlines()]

    def session(self, task_id: str) -> dict[str, Any]:
        """The discussion of a goal with all that was said in it, as the spectator heard it."""
        return self.spectator.get(f"/api/v1/hmmm/sessions/{session_id(task_id, 1)}") or {"items": []}

    def recorded(self, task_id: str, outcome: str) -> dict[str, Any]:
        """The record of this outcome about a goal, found and verified by the spectator."""
        query = {"task_id": task_id, "kind": "hmmm_outcome"}

        def found() -> Any:
            for item in self.spectator.get("/api/v1/decisions", **query)["items"]:
                raw = self.spectator.ask("GET", f"/api/v1/decisions/{item['hash']}")
                if raw.status_code == 200 and raw.json()["decided"]["outcome"] == outcome:
                    return item["hash"], raw.json()
            return None

        name, record = until(found)
        said = self.spectator.ctl("decision", "verify", name, "--json")
        assert json.loads(said.stdout)["genuine"] is True
        assert self.spectator.peer not in record["decided"]["participants"]
        whole: dict[str, Any] = record
        return whole


def of_kind(session: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [item for item in session["items"] if item["kind"] == kind]


def said(session: dict[str, Any], intent: str) -> list[dict[str, Any]]:
    return [message for message in of_kind(session, "message") if message["intent"] == intent]


@pytest.fixture(scope="module")
def talks(needs: None) -> Iterator[Talks]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="chorus-t-", dir="/tmp")))
        made = stack.enter_context(sites(len(AGENTS) + 1, folder))
        models = {name: stack.enter_context(ModelServer(plays(), model=name)) for name in AGENTS}
        for site, (name, settings) in zip(made, AGENTS.items(), strict=False):
            model = {"OLLAMA_ENDPOINT": models[name].url, "OLLAMA_MODEL": name}
            site.start(made, CHORUS_AI_PROVIDER="ollama", **model, **settings)
        made[-1].start(made)
        until_whole(made)
        for site in made:
            until(lambda site=site: known(site) == set(AGENTS))
        yield Talks(dict(zip(AGENTS, made, strict=False)), models, made[-1])


def known(site: Site) -> set[str]:
    """The models in the mesh as an agent knows them."""
    items = (site.get("/api/v1/agents") or {"items": []})["items"]
    return {model["model"] for item in items for model in item.get("models") or ()}


def test_unanimity_cuts_it_short(talks: Talks) -> None:
    talks.play(plays())
    report = talks.completed(task_id := talks.submit("all agree", "patient"))
    record = talks.recorded(task_id, "unanimous")
    assert report["discussion"] == record["address"]
    assert PLAN in record["summary"]
    assert len(record["decided"]["participants"]) == len(AGENTS)
    session = talks.session(task_id)
    assert (session["outcome"], session["plan"]) == ("unanimous", PLAN)
    assert len(said(session, "agreement")) == 2


def test_an_objection_changes_the_plan(talks: Talks) -> None:
    better = "Write it, and read it again."
    talks.play(
        plays(
            (OWNER, "proposal", better),
            (better, "agreement", "Better."),
            (PLAN, "objection", "Nobody would see whether it is whole."),
        )
    )
    report = talks.completed(task_id := talks.submit("an objection", "patient"))
    record = talks.recorded(task_id, "unanimous")
    assert report["discussion"] == record["address"]
    assert better in record["summary"]
    session = talks.session(task_id)
    assert session["plan"] == better
    first, second = said(session, "proposal")
    assert (first["message"], second["message"]) == (PLAN, better)
    objections = {message["message_id"] for message in said(session, "objection")}
    assert second["parent_id"] in objections
    assert [message["parent_id"] for message in said(session, "agreement")] == [second["message_id"]] * 2
    # The run went on with the plan as it was then.
    plans = [record["text"] for record in talks.journal(task_id) if record["kind"] == "plan"]
    assert (plans[0], plans[-1]) == (PLAN, better)
    steps = [json.dumps(seen.body) for seen in talks.models["patient"].seen if seen.body.get("tools")]
    assert better in steps[-1]


@pytest.mark.heavy
def test_silence_lasts_until_the_period_is_over(talks: Talks) -> None:
    # What only an owner may mean counts for nothing when others say it.
    talks.play(plays(("", "escalation", "Not mine to say.")))
    talks.completed(task_id := talks.submit("silence", "hasty"))
    talks.recorded(task_id, "period")
    assert len(of_kind(talks.session(task_id), "message")) == 2


STUBBORN: Final = (
    ("Ada", "proposal", "Write it where Ada says."),
    (OWNER, "answer", "It is small enough."),
    ("", "objection", "It overwrites what is there."),
)


@pytest.mark.heavy
def test_a_person_answers_over_the_api_what_was_escalated(talks: Talks) -> None:
    talks.play(plays(*STUBBORN))
    task_id = talks.submit("a person is asked", "patient")
    until(lambda: talks.session(task_id).get("state") == "escalated")
    # Through an agent that does not work on the goal.
    path = f"/api/v1/hmmm/sessions/{session_id(task_id, 1)}/messages"
    word = {"message": "Write it elsewhere.", "intent": "answer", "name": "Ada"}
    answer = talks.agents["hasty"].ask("POST", path, json=word)
    assert answer.status_code == 201, answer.text
    talks.completed(task_id)
    record = talks.recorded(task_id, "answered")
    assert "Ada" in record["decided"]["reason"]
    session = talks.session(task_id)
    assert session["plan"] == "Write it where Ada says."
    assert len(said(session, "escalation")) == 1


@pytest.mark.heavy
def test_without_a_persons_answer_it_goes_on_with_its_plan(talks: Talks) -> None:
    talks.play(plays(*STUBBORN))
    talks.completed(task_id := talks.submit("nobody answers", "unanswered"))
    record = talks.recorded(task_id, "timeout")
    assert PLAN in record["summary"]
    assert len(said(talks.session(task_id), "escalation")) == 1


@pytest.mark.heavy
def test_advice_saves_a_stuck_run(talks: Talks) -> None:
    advice = "Leave that file alone, and write done.txt."
    play = plays(advise=advice)

    def stuck(asked: Conversation) -> Reply:
        if asked.question == "step" and advice not in asked.text:
            return Reply(calls=(Call(tool="run", arguments={"command": "cat missing.txt"}),))
        if asked.question != "step":
            return play(asked)
        return STEPS["write" in [name for message in asked.said for name in message.calls]]

    talks.play(stuck)
    talks.completed(task_id := talks.submit("stuck", "patient"))
    record = talks.recorded(task_id, "advised")
    assert record["summary"].count(advice) == 2
    session = talks.session(task_id)
    helpers = {talks.agents[name].agent_id for name in ("hasty", "unanswered")}
    assert {item["from"]["agent_id"] for item in of_kind(session, "advice")} == helpers
    assert [item["message"] for item in of_kind(session, "advice")] == [advice] * 2


@pytest.mark.heavy
@pytest.mark.parametrize("leads", [False, True], ids=["the leader hears", "the leader works on one"])
def test_two_goals_of_a_project_raise_one_alert(talks: Talks, leads: bool) -> None:
    leader = talks.leader()
    others = [name for name in AGENTS if name != leader]
    owners = [leader, others[0]] if leads else others
    play, alerted = plays(), threading.Event()
    paths = ("config/settings.yaml", "config/more.yaml", "api/routes.py")

    def touches(asked: Conversation) -> Reply:
        """Writes one file; when there is an alert the others, under the same rule and another."""
        if asked.question != "step":
            return play(asked)
        place = sum(bool(message.calls) for message in asked.said)
        if place:
            alerted.wait()
        return write(paths[place]) if place < len(paths) else FINISH

    talks.play(touches)
    project = f"shop {leads}"
    tasks = [talks.submit(f"one of two: {name}", name, project=project) for name in owners]
    try:
        alerts = until(lambda: [alert for task in tasks for alert in of_kind(talks.session(task), "alert")])
    finally:
        alerted.set()
    second, first = alerts[0]["task_id"], alerts[0]["depends_on"][0]
    assert {second, first} == set(tasks)
    for task_id in tasks:
        talks.completed(task_id)
    record = talks.recorded(second, "alerted")
    assert "config/settings.yaml" in record["summary"]
    for task_id in tasks:
        kept = of_kind(talks.session(task_id), "alert")
        assert [alert["alert_id"] for alert in kept] == [alerts[0]["alert_id"]]
