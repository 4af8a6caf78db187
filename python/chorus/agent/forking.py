"""Programs of the agent that supervisord forks instead of starting an interpreter for each.

supervisord loads once what its programs are made of, and each of them begins as a copy of it. So what none of
them writes to is in memory once, and a program that is started again has nothing to load. It is of the same
release as the others, also when another one has been installed meanwhile.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from prometheus_client.mmap_dict import MmapedDict
from supervisor.options import ServerOptions

from chorus.agent import proctitle
from chorus.agent.programs import module_of
from chorus.config.paths import METRICS_VARIABLE
from chorus.process import exit_codes, runner

Start = Callable[[], NoReturn]


def fork_programs(modules: Iterable[str], run_dir: Path) -> None:
    """Loads these modules, and has this process's supervisord fork the programs that are made of them.

    A module that cannot be loaded is left out: its program is started as any other, and says by itself what
    is wrong.
    """
    starts: dict[str | None, Start] = {}
    # What the collector would free leaves holes, in pages that programs would then write to.
    gc.disable()
    with _metrics_in_no_file(run_dir):
        for module in modules:
            try:
                starts[module] = importlib.import_module(f"{module}.__main__").start
            except Exception:
                traceback.print_exc()
        try:
            runner.load(run_dir)
        except Exception:
            # Each program comes to it too, and says what is wrong.
            traceback.print_exc()
    # A program's collector has nothing to look for in all this, and does not write to it.
    gc.freeze()
    gc.enable()

    def execve(
        options: ServerOptions, filename: str, argv: Sequence[str], env: Mapping[str, str]
    ) -> NoReturn:
        start = starts.get(module_of(argv))
        if start is None:
            os.execve(filename, list(argv), env)
        _become(argv, env, start)

    # Called in the child, after its pipes were put in place and all else that was open was closed.
    ServerOptions.execve = execve


def _become(argv: Sequence[str], env: Mapping[str, str], start: Start) -> NoReturn:
    """Runs a program in this process as if its interpreter had just been started."""
    code = exit_codes.FAILED
    try:
        for number in signal.valid_signals():
            if callable(signal.getsignal(number)):
                signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ.clear()
        os.environ.update(env)
        sys.argv = [argv[-1]]
        proctitle.show(argv)
        start()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else exit_codes.FAILED
    except BaseException:
        traceback.print_exc()
    finally:
        # Not back to supervisord, of which this process is a copy.
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)


@contextlib.contextmanager
def _metrics_in_no_file(run_dir: Path) -> Iterator[None]:
    """Closes the files that metrics are kept in from their making on: each program opens its own at its first
    use of one (as prometheus_client has it after a fork), and those of this process would count for nothing.
    """
    kept = os.environ.get(METRICS_VARIABLE)
    with tempfile.TemporaryDirectory(dir=run_dir) as folder:
        os.environ[METRICS_VARIABLE] = folder
        try:
            yield
        finally:
            for found in gc.get_objects():
                if isinstance(found, MmapedDict):
                    found.close()  # type: ignore[no-untyped-call]
            del os.environ[METRICS_VARIABLE]
            if kept is not None:
                os.environ[METRICS_VARIABLE] = kept
