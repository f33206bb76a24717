"""Which page to ask next, and whether the whole adds up.

Pure: no clock, no event loop, no socket, no logging. Counts and ids come in; page requests and a
verdict on each batch go out. The laws of a batch are in `phases`, what happens to an answer in
`batch_plan`, and what happens to all batches in `scan_plan`.
"""

from ief_async._paging.batches import Batch, Batcher, Query, Selector, check_id, url_bytes
from ief_async._paging.pages import Accepted, PageRequest
from ief_async._paging.scan_plan import STALLED, ScanPlan
from ief_async._paging.shape import PageCap, requests_for
from ief_async._paging.verdict import BatchReport

__all__ = [
    "STALLED",
    "Accepted",
    "Batch",
    "BatchReport",
    "Batcher",
    "PageCap",
    "PageRequest",
    "Query",
    "ScanPlan",
    "Selector",
    "check_id",
    "requests_for",
    "url_bytes",
]
