"""One request from end to end: its connection, its slot, its repeats, and what its answer means.

The only wing that speaks aiohttp.
"""

from ief_async._http.connections import Connections, HttpSession
from ief_async._http.limiter import Counters, RetryBudget
from ief_async._http.pacer import Pacer
from ief_async._http.transport import Endpoints, Transport

__all__ = [
    "Connections",
    "Counters",
    "Endpoints",
    "HttpSession",
    "Pacer",
    "RetryBudget",
    "Transport",
]
