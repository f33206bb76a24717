"""A scan at work: its tasks, where its consumer is, and the stream that the user holds.

A function that fetches a page is handed in; nothing here knows of HTTP.
"""

from ief_async._scan.fleet import FLEET, Fleet, Member
from ief_async._scan.reading import (
    Reader,
    page_of,
    stand_in,
    structure_some,
)
from ief_async._scan.reports import Page, ScanProgress, ScanReport
from ief_async._scan.scan import Scan
from ief_async._scan.spec import (
    ID_ARGUMENTS,
    MOST_CONCURRENT,
    ScanSpec,
    as_checkpoint,
    check_bad_item,
    check_iterable,
    select_ids,
)
from ief_async._scan.stream import Stream, engine_of
from ief_async._scan.watching import look_for_fields, raw_rows

__all__ = [
    "FLEET",
    "ID_ARGUMENTS",
    "MOST_CONCURRENT",
    "Fleet",
    "Member",
    "Page",
    "Reader",
    "Scan",
    "ScanProgress",
    "ScanReport",
    "ScanSpec",
    "Stream",
    "as_checkpoint",
    "check_bad_item",
    "check_iterable",
    "engine_of",
    "look_for_fields",
    "page_of",
    "raw_rows",
    "select_ids",
    "stand_in",
    "structure_some",
]
