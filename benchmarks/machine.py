"""What the machine and the process of a benchmark are."""

import importlib.metadata
import os
import platform
from datetime import UTC, datetime
from pathlib import Path

LIBRARIES = ("ief-async", "aiohttp", "attrs", "cattrs", "msgspec", "orjson")


def environment(*more: str) -> dict[str, str]:
    """Return the date, the machine, and the versions of the libraries; `more` of those that matter.

    What is not installed is left out.
    """
    python = f"{platform.python_implementation()} {platform.python_version()}"
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    versions = []
    for name in (*LIBRARIES, *more):
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": f"{python}, {platform.system()}, {os.cpu_count()} cores{load}",
        "libraries": ", ".join(versions),
    }


def peak_memory() -> float:
    """Return the most memory that this process ever held, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux ru_maxrss of a child starts at what its parent held
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)
