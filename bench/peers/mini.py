"""One run of mini-swe-agent with its Docker environment: mini.py URL MODEL IMAGE SECONDS FOLDER TASK.

The files of FOLDER are copied into the container before the run and back after it; `-` is none. It runs in a
Python environment of its own, which has nothing of CHORUS. The exit code is 0 when the agent said that it was
done, 3 when it did not. A reply that is not there after SECONDS is not waited for.
"""

import contextlib
import os
import signal
import subprocess
import sys

# Nothing is fetched from elsewhere, no price is looked up, and nothing of a user's settings is read.
os.environ |= {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "MSWEA_COST_TRACKING": "ignore_errors",
    "MSWEA_SILENT_STARTUP": "1",
    "OPENAI_API_KEY": "none",
}

import yaml
from minisweagent.agents.default import DefaultAgent
from minisweagent.config import builtin_config_dir
from minisweagent.environments.docker import DockerEnvironment
from minisweagent.models.litellm_model import LitellmModel

url, model_name, image, seconds, folder, task = sys.argv[1:]
config = yaml.safe_load((builtin_config_dir / "mini.yaml").read_text())
model = LitellmModel(
    model_name=f"openai/{model_name}",
    model_kwargs={"api_base": f"{url}/v1", "drop_params": True},
    observation_template=config["model"]["observation_template"],
    format_error_template=config["model"]["format_error_template"],
)
environment = DockerEnvironment(
    image=image, cwd="/workspace", env=config["environment"]["env"], run_args=["--rm", "--network", "none"]
)
agent = DefaultAgent(
    model,
    environment,
    system_template=config["agent"]["system_template"],
    instance_template=config["agent"]["instance_template"],
    wall_time_limit_seconds=int(seconds),
)


class TimeIsUp(BaseException):
    """Not an error that a library would take for one of the model's and try again after."""


def _end(*_: object) -> None:
    raise TimeIsUp


signal.signal(signal.SIGALRM, _end)
signal.alarm(int(seconds))
ended = {}
try:
    there = f"{environment.container_id}:/workspace/"
    if folder != "-":
        subprocess.run(["docker", "cp", f"{folder}/.", there], check=True)
        own = ["docker", "exec", "--user", "root", environment.container_id, "chown", "-R", "task", "."]
        subprocess.run(own, check=True)
    with contextlib.suppress(TimeIsUp):
        ended = agent.run(task)
    signal.alarm(0)
    if folder != "-":
        subprocess.run(["docker", "cp", f"{there}.", folder], check=True)
finally:
    environment.cleanup()
sys.exit(0 if ended.get("exit_status") == "Submitted" else 3)
