"""Runs several ways to do one thing side by side, each in a process of its own.

`race` starts a process for each way. The process does the thing once without being timed, so that
its code is made and its caches are full. Then the ways take turns, round after round, each round in
another order; nothing runs while one of them does. A round begins with `gc.collect()`, and the
garbage collector is on, as it is in an application. With ``frozen`` each process has called
`gc.freeze()` after its warm-up, so that the collector no longer looks through the modules that the
process has imported: an application with many modules pays for them in every way.

What is compared is the *least* CPU time of a way's process: what else the machine does can only add
to it. Wall times and quartiles stand beside it.
"""

import contextlib
import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

Round = Callable[[], int]
"""Does the thing once, and returns how many pods it saw."""


@attrs.frozen
class Times:
    """What the rounds of one way took.

    Attributes:
        cpu: seconds of CPU time of its process, all threads, of each round.
        wall: seconds.
    """

    cpu: list[float] = attrs.field(factory=list)
    wall: list[float] = attrs.field(factory=list)

    @property
    def least(self) -> float:
        """The least CPU time of a round."""
        return min(self.cpu)

    def quartiles(self) -> tuple[float, float]:
        """Return the first and the third quartile of the CPU times."""
        if len(self.cpu) == 1:
            return self.cpu[0], self.cpu[0]
        first, _, third = statistics.quantiles(self.cpu, n=4, method="inclusive")
        return first, third


def race(
    script: str,
    ways: Mapping[str, Sequence[str]],
    *,
    rounds: int,
    pods: int,
    frozen: bool = False,
) -> dict[str, Times]:
    """Return the times of each way.

    Args:
        script: a script that calls `run_rounds` if its first argument is "round".
        ways: by name, the arguments of the script behind "round".
        rounds: how often each way is timed.
        pods: how many each way has to see.
        frozen: whether the processes call `gc.freeze()` after their warm-up.
    """
    found = {name: Times() for name in ways}
    with contextlib.ExitStack() as stack:
        processes = {}
        for name, arguments in ways.items():
            command = [sys.executable, script, "round", *arguments]
            pipe = subprocess.PIPE
            process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
            processes[name] = stack.enter_context(process)
        for name, process in processes.items():
            _ask(process, "warm up and freeze" if frozen else "warm up", name, pods)
        names = [*ways]
        for number in range(rounds):
            first = number % len(names)
            for name in names[first:] + names[:first]:
                cpu, wall = _ask(processes[name], "go", name, pods)
                found[name].cpu.append(cpu)
                found[name].wall.append(wall)
        for process in processes.values():
            assert process.stdin is not None
            process.stdin.close()
    return found


def _ask(process: "subprocess.Popen[str]", what: str, name: str, pods: int) -> tuple[float, float]:
    assert process.stdin is not None
    assert process.stdout is not None
    print(what, file=process.stdin, flush=True)
    answer: dict[str, Any] = json.loads(process.stdout.readline() or "{}")
    if answer.get("pods") != pods:
        message = f"{name}: {answer.get('pods')} of {pods} pods"
        raise RuntimeError(message)
    return answer["cpu"], answer["wall"]


def run_rounds(once: Round) -> None:
    """Do the thing as often as `race` asks for, in the process of a way."""
    for line in sys.stdin:
        gc.collect()
        cpu, wall = time.process_time(), time.perf_counter()
        pods = once()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        if line.strip().endswith("freeze"):
            gc.collect()
            gc.freeze()
        print(json.dumps({"pods": pods, "cpu": cpu, "wall": wall}), flush=True)
