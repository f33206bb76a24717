"""What a body has to be, and how one that is something else is refused."""

import json
from typing import TypeVar

import attrs
import pytest
from rows import everything_said, one, page, tolerant

from ief_async import (
    ApiError,
    AuthenticationError,
    IefSession,
    Limits,
    PayloadError,
    Pod,
    RetryPolicy,
    ServerError,
    Token,
)
from ief_async._structure.envelope import split
from ief_async._structure.structure import structure_of
from ief_async.testing import FakeIef, Fault

T = TypeVar("T")

PODS = structure_of(Pod)
MARKER = "hunter2-0451"
QUICK = RetryPolicy(attempts=2, base=0, throttled_base=0)


def refused(row, structure=PODS):
    """Return the error that a row ends in."""
    with pytest.raises(PayloadError) as caught:
        one(structure, row)
    return caught.value


def fails_to_split(body):
    """Return the error that a body ends in."""
    with pytest.raises(PayloadError) as caught:
        split(body, key="pods")
    return caught.value


async def list_pods(fake, **options):
    """Ask a fake server for one page."""
    ief = IefSession(
        fake.project_id,
        credentials=Token(fake.token),
        endpoint=fake.endpoint,
        retry=QUICK,
        **options,
    )
    async with ief:
        return await ief.list_pods(deployment_id=fake.deployment_ids[0], limit=10)


# ---- JSON --------------------------------------------------------------------------------------

NOT_JSON = {
    "html": b"<!DOCTYPE html><title>Log in</title>",
    "nothing": b"",
    "blanks": b" \r\n\t ",
    "not UTF-8 in an id": b'{"count":1,"pods":[{"id":"\xff"}]}',
    "not UTF-8 at all": b"\xff\xfe{\0}\0",
    "cut": page({"id": "a"})[:-1],
    "cut in an escape": b'{"count":1,"pods":[{"id":"\\ud8',
    "more behind": page({"id": "a"}) + b"x",
    "NaN": b'{"count":NaN,"pods":[]}',
    "Infinity": b'{"count":1,"x":Infinity,"pods":[]}',
    "NaN beside half a pair": b'{"count":1,"x":NaN,"y":"\\ud800","pods":[]}',
}


@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON)
def test_no_json_is_transient(body):
    """What is no JSON is a PayloadError that may be cured by asking again."""
    error = fails_to_split(body)

    assert (True, "") == (error.transient, error.path)
    assert 200 >= len(error.snippet)


@pytest.mark.parametrize("fault", [Fault.html(), Fault.empty(), Fault.body(b'{"count":1,"po')])
async def test_no_json_is_asked_for_again(fault):
    """HTML, nothing and cut JSON with status 200 cost a repeat, not the answer."""
    async with FakeIef(3, deployments=1) as fake:
        fake.script(fault)
        answer = await list_pods(fake)

        assert (3, 2, 2) == (len(answer.items), answer.attempts, fake.statistics().requests)


async def test_html_for_ever_is_payload_error():
    """A login page on every attempt is a PayloadError that shows how the page begins."""
    async with FakeIef(3) as fake:
        fake.script(Fault.html(), Fault.html())
        with pytest.raises(PayloadError) as caught:
            await list_pods(fake)

        assert ("<!DOCTYPE html>", 2) == (caught.value.snippet[:15], caught.value.attempts)


@pytest.mark.parametrize("kind", [None, "text/plain", "application/octet-stream"])
async def test_content_type_does_not_matter(kind):
    """JSON is read as JSON, whatever it is called."""
    async with FakeIef(0) as fake:
        fake.script(Fault.body(page({"id": "a"}), content_type=kind))

        assert ["a"] == [pod.id for pod in (await list_pods(fake)).items]


@pytest.mark.parametrize("charset", ["foo", "utf-16", "latin-1"])
async def test_charset_does_not_matter(charset):
    """Names come intact under a charset that lies."""
    body = json.dumps({"count": 1, "pods": [{"id": "a", "name": "边缘 é"}]}, ensure_ascii=False)
    async with FakeIef(0) as fake:
        kind = f"application/json; charset={charset}"
        fake.script(Fault.body(body.encode(), content_type=kind))

        assert "边缘 é" == (await list_pods(fake)).items[0].name


@pytest.mark.parametrize(
    "text", [page({"id": "a"}), b'{"count":1,"x":"\\ud800","pods":[{"id":"a"}]}']
)
def test_byte_order_mark_is_skipped(text):
    """A byte order mark ahead of the JSON changes nothing."""
    assert ["a"] == split(b"\xef\xbb\xbf" + text, key="pods").ids


def test_wrong_utf_8_in_a_field():
    """Bytes that are no UTF-8 in a field that is read are a PayloadError for that row."""
    error = refused(b'{"id":"a","name":"\xff"}')

    assert "pods[0]" == error.path


def test_infinite_numbers_in_a_row():
    """NaN in a row is no JSON, and a number beyond all floats is none for a field."""
    assert "pods[0]" == refused(b'{"id":"a","name":NaN}').path
    assert "pods[0].name" == refused(b'{"id":"a","name":1e400}').path
    limits = b'{"id":"a","containers":[{"resources":{"limits":{"cpu":1e400}}}]}'
    assert "pods[0].containers[0].resources.limits.cpu" == refused(limits).path


def test_last_duplicate_wins():
    """Of two keys with one name the last counts, at the top and in a row, on both paths."""
    rows = split(b'{"count":1,"count":2,"pods":[],"pods":[{"id":"a","id":"b"}]}', key="pods")

    assert (2, ["b"]) == (rows.count, rows.ids)
    assert "b" == one(PODS, bytes(rows.raw[0])).id == tolerant(PODS, bytes(rows.raw[0])).id


def test_endless_number():
    """5,000 digits are a PayloadError at count and in a field, and skipped where unread."""
    digits = b"9" * 5_000
    assert "count" == fails_to_split(b'{"count":%b,"pods":[]}' % digits).path
    assert "count" == fails_to_split(b'{"count":"%b","pods":[]}' % digits).path
    for row in (
        b'{"id":"a","containers":[{"restarts":%b}]}',
        b'{"id":"a","containers":[{"restarts":"%b"}]}',
    ):
        assert "pods[0].containers[0].restarts" == refused(row % digits).path
    unread = b'{"id":"a","unknown":%b}' % digits
    assert Pod(id="a") == one(PODS, unread) == tolerant(PODS, unread)


@pytest.mark.parametrize("more", [b"", b'"y":"\\ud800",'])
@pytest.mark.parametrize(("start", "end"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_deep_nesting(start, end, more):
    """100,000 levels are a PayloadError, in the envelope and in a row."""
    deep = start * 100_000 + b"1" + end * 100_000
    error = fails_to_split(b'{"count":0,%b"x":%b,"pods":[]}' % (more, deep))

    assert 500 > len(str(error))
    assert "pods[0]" == refused(b'{"id":"a",%b"x":%b}' % (more, deep)).path


@pytest.mark.parametrize("depth", range(900, 1_000, 7))
def test_nesting_at_the_limit(depth):
    """Near the interpreter's own limit nothing but a PayloadError leaves either."""
    body = b'{"count":1,"pods":[{"id":"a","n":"\\ud800","x":%b%b}]}' % (b"[" * depth, b"]" * depth)
    try:
        found = PODS.items(split(body, key="pods").raw, [0], key="pods")
    except PayloadError:
        found = [Pod(id="a")]

    assert [Pod(id="a")] == found


def test_half_of_a_surrogate_pair():
    """A lone surrogate is kept, in an id as in a name, and can be written as JSON again."""
    body = (
        b'{"\\udc00":0,"count":"2","pods":[{"id":"\\ud800","name":"\\udfff"},'
        b'{"id":"b","\\ud800":1}]}'
    )
    rows = split(body, key="pods")
    first, second = PODS.items(rows.raw, [0, 1], key="pods")

    assert (2, ["\ud800", "b"]) == (rows.count, rows.ids)
    assert ("\ud800", "\udfff", Pod(id="b")) == (first.id, first.name, second)
    assert "\udfff" == json.loads(json.dumps(attrs.asdict(first)))["name"]


@pytest.mark.parametrize("half", [b"", b',"x":"\\ud800"'])
def test_half_of_a_pair_changes_nothing_else(half):
    """A body with a lone surrogate is held to the same envelope as any other."""
    assert 0 == split(b'{"count":0,"pods":null%b}' % half, key="pods").count
    assert "pods" == fails_to_split(b'{"count":3,"pods":null%b}' % half).path
    assert "pods" == fails_to_split(b'{"count":3,"pods":{}%b}' % half).path
    assert "count" == fails_to_split(b'{"count":true,"pods":[]%b}' % half).path
    assert "pods[1].id" == fails_to_split(b'{"pods":[{"id":"a"},{"id":4}]%b}' % half).path
    assert "pods[0]" == fails_to_split(b'{"pods":[null]%b}' % half).path
    assert "pods" in str(fails_to_split(b'{"count":3%b}' % half))


OTHER_SHAPES = {
    "list": b"[]",
    "list of a half": b'["\\ud800"]',
    "text": b'"pods"',
    "number": b"7",
    "null": b"null",
    "false": b"false",
    "empty": b"{}",
    "no pods": b'{"count":0}',
    "pods null": b'{"count":1,"pods":null}',
    "pods null, no count": b'{"pods":null}',
    "pods object": b'{"count":0,"pods":{}}',
    "pods text": b'{"count":0,"pods":"null"}',
    "empty text": b'{"count":0,"pods":""}',
    "pods false": b'{"count":0,"pods":false}',
}


@pytest.mark.parametrize("body", OTHER_SHAPES.values(), ids=OTHER_SHAPES)
def test_other_shapes_are_refused(body):
    """JSON of another shape is a lasting PayloadError, never an empty list."""
    error = fails_to_split(body)

    assert (False, "") == (error.transient, error.snippet)


@pytest.mark.parametrize("body", OTHER_SHAPES.values(), ids=OTHER_SHAPES)
async def test_other_shapes_are_asked_for_once(body):
    """Asking again would not help, so it is not done."""
    async with FakeIef(3) as fake:
        fake.script(Fault.body(body))
        with pytest.raises(PayloadError) as caught:
            await list_pods(fake)

        assert (1, 1) == (fake.statistics().requests, caught.value.attempts)
        assert caught.value.request_id in str(caught.value)


async def test_endless_blanks():
    """50 MB of blanks are too long where the cap says so, and no data where it does not."""
    blanks = b" " * 50_000_000
    async with FakeIef(0) as fake:
        fake.script(Fault.body(blanks + b"{}"))
        with pytest.raises(PayloadError, match="max_body_bytes") as caught:
            await list_pods(fake, limits=Limits(max_body_bytes=32 << 20))

        assert (1, False) == (fake.statistics().requests, caught.value.transient)
    assert "pods" in str(fails_to_split(blanks + b"{}"))


@pytest.mark.parametrize(
    ("body", "kind", "code"),
    [
        (b'{"error_code":"IEF.100001","error_msg":"no"}', ApiError, "IEF.100001"),
        (b'{"error_code":"IEF.310002","error_msg":"expired"}', AuthenticationError, "IEF.310002"),
        (b'{"error_msg":"x","error_code":"APIGW.0301"}', AuthenticationError, "APIGW.0301"),
        (b'{"error":{"code":500,"message":"x","title":"y"}}', ApiError, "500"),
        (b'{"errorCode":"A.1","errorMsg":"x"}', ApiError, "A.1"),
    ],
)
async def test_error_with_status_200(body, kind, code):
    """An error body in a 200 is an ApiError by its code, asked for once."""
    async with FakeIef(3) as fake:
        fake.script(Fault.body(body))
        with pytest.raises(kind) as caught:
            await list_pods(fake)

        assert (code, 200, 1) == (
            caught.value.error_code,
            caught.value.status,
            fake.statistics().requests,
        )
        assert not isinstance(caught.value, ServerError)


async def test_null_beside_count_0_is_empty():
    """C2: ``pods: null`` beside count 0 is how a Go server writes an empty list."""
    async with FakeIef(3) as fake:
        fake.script(Fault.body(b'{"count":0,"pods":null}'))
        answer = await list_pods(fake)

        assert ((), 0, 1) == (answer.items, answer.count, answer.attempts)


@pytest.mark.parametrize(
    ("text", "count"),
    [(b'"count":null,', None), (b"", None), (b'"count":"12",', 12), (b'"count":0,', 0)],
)
def test_count(text, count):
    """Count may be missing, null, a number, or its digits as a text."""
    assert count == split(b"{" + text + b'"pods":[{"id":"a"}]}', key="pods").count


@pytest.mark.parametrize(
    "count",
    [
        '"abc"',
        "12.5",
        "true",
        "-1",
        "1e30",
        '"-1"',
        '""',
        '"null"',
        "[]",
        "{}",
        '"1.5"',
        str(2**63),
    ],
)
def test_count_that_counts_nothing(count):
    """A count that is no number of rows is a PayloadError at count."""
    assert "count" == fails_to_split(b'{"count":%b,"pods":[]}' % count.encode()).path


def test_empty_page():
    """An empty list is one beside any count, as behind the end of the list."""
    for count in ("3", "0", "null"):
        rows = split(f'{{"count":{count},"pods":[]}}'.encode(), key="pods")

        assert ([], []) == (rows.ids, list(rows.raw))


def test_null_in_the_list():
    """A pod that is null, or anything but an object, is a PayloadError at its index."""
    for row in (b"null", b"7", b'"a"', b"[]"):
        assert "pods[1]" == fails_to_split(b'{"count":2,"pods":[{"id":"a"},%b]}' % row).path
        assert "pods[0] is not Pod" in str(refused(row))


def test_many_wrong_rows_are_bounded():
    """10,000 wrong rows are an error for the first of them."""
    rows = split(page(*[{"id": str(n), "name": [MARKER]} for n in range(10_000)]), key="pods")
    with pytest.raises(PayloadError) as caught:
        PODS.items(rows.raw, range(10_000), key="pods")

    assert "pods[0].name" == caught.value.path
    assert 300 > len(str(caught.value))


@pytest.mark.parametrize(
    "body",
    [
        page({"id": [MARKER]}),
        page(MARKER),
        page({"id": "a"}, count=MARKER),
        page(count={MARKER: MARKER}),
        json.dumps({"pods": MARKER}).encode(),
    ],
)
def test_envelope_shows_no_value(body):
    """An envelope's error names types and a path, and no value."""
    error = fails_to_split(body)

    assert "Expected" in str(error)
    assert MARKER not in everything_said(error)
    assert (None, None) == (error.__cause__, error.__context__)


def test_other_keys_and_escapes():
    """The key of the rows is the caller's, and may be escaped in the body."""
    body = b'{"n\\u006fdes":[{"i\\u0064":"\\u00e9"}],"count":1}'

    assert ["é"] == split(body, key="nodes").ids
    with pytest.raises(PayloadError) as caught:
        split(b'{"nodes":[{"id":1}]}', key="nodes")
    assert "nodes[0].id" == caught.value.path
