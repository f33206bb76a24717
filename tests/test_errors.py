"""The tree of errors, and the canary: no error path shows a token, wherever one looks."""

import asyncio
import base64
import builtins
import copy
import copyreg
import gc
import html
import inspect
import itertools
import json
import logging
import pickle
import re
import socket
import ssl
import traceback
import warnings
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import unquote

import aiohttp
import attrs
import pytest
from conftest import secret_fields, session_with, turns, until
from weather import serving

import ief_async
from ief_async import (
    AccessKey,
    ApiError,
    AuthenticationError,
    BatchFailure,
    ConfigurationError,
    IefError,
    IefSession,
    Limits,
    PartialScanError,
    PasswordCredentials,
    PayloadError,
    RetryPolicy,
    ScanCheckpoint,
    ThrottledError,
    Timeouts,
    Token,
    TransportError,
    _errors,
)
from ief_async._http.responses import classify_refusal
from ief_async.testing import DEFAULT_MIX, Account, FakeIef, Fault

PROJECT = "bcd83056c918480f8f190844bd425b23"
SAMPLES = Path(__file__).parent / "samples"

# ---- the tree ------------------------------------------------------------------------------------


def drawn():
    """Read the drawing of the tree: each class with its parent, its line beside it."""
    tree, above = {}, {}
    for branch, name, rest in re.findall(
        r"^    ([├└│ ]*)(\w+Error)\b(.*)$", _errors.__doc__, re.MULTILINE
    ):
        depth = len(branch) // 2
        above[depth] = name
        tree[name] = (above.get(depth - 1, "Exception"), rest)
    return tree


def defined():
    """Return the classes of the module by name."""
    members = inspect.getmembers(_errors, inspect.isclass)
    return {
        name: kind
        for name, kind in members
        if kind.__module__ == _errors.__name__ and issubclass(kind, Exception)
    }


ERRORS = [kind for kind in defined().values() if kind is not PartialScanError]


def test_tree_is_the_one_that_is_drawn():
    """Every class of the module is drawn under its parent, and nothing else is drawn."""
    drawing = {name: parent for name, (parent, _) in drawn().items()}

    assert len(drawing) > 9
    assert drawing == {name: kind.__bases__[0].__name__ for name, kind in defined().items()}


def test_builtin_parents_are_drawn():
    """A class is also a builtin error exactly where the drawing says so."""
    for name, (_, rest) in drawn().items():
        said = re.findall(r"also (\w+)", rest)
        mixed = [base.__name__ for base in defined()[name].__bases__[1:]]
        assert said == mixed, name
    assert issubclass(ConfigurationError, ValueError)


def test_drawing_names_the_statuses():
    """The statuses beside a class are those that lead to it."""
    for name, (parent, rest) in drawn().items():
        if parent == "ApiError":
            for status in re.findall(r"\d{3}", rest.partition(", and")[0]):
                assert name == classify_refusal(int(status), "").error.__name__


def test_every_error_is_public_and_documented():
    """Each class can be imported from the package, says what it means, and hides no builtin."""
    for name, kind in defined().items():
        assert getattr(ief_async, name) is kind
        assert name in ief_async.__all__
        assert kind.__doc__
        assert not hasattr(builtins, name)


# ---- errors are plain values ---------------------------------------------------------------------


def made(kind):
    """Return an error of this class with every attribute set."""
    options = {"transient": True}
    if issubclass(kind, ApiError):
        options |= {"status": 503, "error_code": "IEF.1", "error_msg": "no", "retry_after": 2.5}
    if issubclass(kind, PayloadError):
        options |= {"path": "pods[3].id", "snippet": "<html>"}
    error = kind("it failed: é", **options)
    error.request_id, error.attempts, error.elapsed = "r-1", 3, 1.5
    error.batch, error.offset = 2, 100
    error.add_note("In batch 2.")
    error.add_note("Not sent again.")
    return error


def partial():
    """Return the error of a scan of which two batches failed."""
    failures = [
        BatchFailure(batch=1, ids=("a",), error=made(TransportError)),
        BatchFailure(batch=4, ids=("b", "c"), error=made(ThrottledError)),
    ]
    error = PartialScanError("2 of 5 batches failed", failures)
    error.checkpoint = ScanCheckpoint(scan=7, parts=())
    error.add_note("A note.")
    return error


COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{
        f"pickle-{protocol}": lambda error, protocol=protocol: pickle.loads(  # noqa: S301  our own
            pickle.dumps(error, protocol)
        )
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    },
}


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_error_is_copied_and_pickled_whole(kind, copied):
    """A copy, shallow or deep or by any pickle protocol, keeps class, text, attributes, notes."""
    error = made(kind)
    again = copied(error)

    assert kind is type(again)
    assert error is not again
    assert (error.args, str(error), error.message) == (again.args, str(again), again.message)
    assert vars(error) == vars(again)
    assert ["In batch 2.", "Not sent again."] == again.__notes__


@pytest.mark.parametrize("made", [*(lambda kind=kind: made(kind) for kind in ERRORS), partial])
def test_copies_share_nothing_whatever_a_process_has_registered(made, monkeypatch):
    """What Dask registers for pickling errors makes copies that share attributes: ours do not."""
    error = made()

    def shared(one):
        again = type(one).__new__(type(one), *one.args)
        again.__dict__ = one.__dict__
        return (lambda: again), ()

    monkeypatch.setitem(copyreg.dispatch_table, type(error), shared)
    again = copy.copy(error)
    again.attempts = 9

    assert type(error) is type(again)
    assert (str(error), error.args) == (str(again), again.args)
    assert 9 != error.attempts
    assert vars(error) == {**vars(again), "attempts": error.attempts}


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_error_is_made_of_a_text(kind):
    """One text makes an error; all its attributes have the value of what is not known."""
    error = kind("oh")

    assert "oh" == str(error) == error.message
    assert (None, 0, 0.0, None, None, None, False) == (
        error.request_id,
        error.attempts,
        error.elapsed,
        error.batch,
        error.offset,
        error.checkpoint,
        error.transient,
    )
    documented = {line for base in kind.__mro__ for line in (base.__doc__ or "").splitlines()}
    for name in vars(error):
        assert any(line.strip().startswith(f"{name}:") for line in documented), name


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_partial_scan_error_is_copied_and_pickled_whole(copied):
    """A copy keeps the failures with batch, ids and error, the checkpoint and the notes."""
    again = copied(partial())

    assert ["A note."] == again.__notes__
    assert ScanCheckpoint(scan=7, parts=()) == again.checkpoint
    assert [(1, ("a",)), (4, ("b", "c"))] == [(one.batch, one.ids) for one in again.failures]
    assert [one.error for one in again.failures] == list(again.exceptions)
    assert "2 of 5 batches failed" == again.message


def test_partial_scan_error_is_a_group():
    """`except*` takes the errors apart, and each part still knows its batches."""
    parts = []
    try:
        raise partial()
    except* TransportError as group:
        parts.append(group)
    except* ApiError as group:
        parts.append(group)
    assert [PartialScanError] * 2 == [type(part) for part in parts]
    assert [[1], [4]] == [[failure.batch for failure in part.failures] for part in parts]
    assert {ScanCheckpoint(scan=7, parts=())} == {part.checkpoint for part in parts}


async def test_pickled_error_of_a_request_keeps_what_happened(fake_ief):
    """An error that the transport made goes through pickle with status, code, id and notes."""
    async with session_with(fake_ief, retry=RetryPolicy(attempts=2, throttled_base=0)) as ief:
        fake_ief.script(Fault.throttle("0"), Fault.throttle("0"))
        with pytest.raises(ThrottledError) as caught:
            await ief.iter_pods(fake_ief.deployment_ids[:1]).collect()
    error = caught.value
    again = pickle.loads(pickle.dumps(error))  # noqa: S301  our own

    assert vars(error) == vars(again)
    assert (429, "APIGW.0308", 0.0, 2, 0, 0) == (
        again.status,
        again.error_code,
        again.retry_after,
        again.attempts,
        again.batch,
        again.offset,
    )
    assert 2 == len(again.__notes__)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 418, 429, 500, 503])
async def test_text_of_an_answer_has_code_and_request_id(status, fake_ief):
    """str(error) of every ApiError has status, code, words, request id and what to do next."""
    async with session_with(fake_ief, retry=RetryPolicy(attempts=1)) as ief:
        fake_ief.script(Fault.status(status, error_code="IEF.777", error_msg="so be it"))
        with pytest.raises(ApiError) as caught:
            await ief.list_pods(node_id="n")
    error = caught.value

    assert 32 == len(error.request_id)
    assert (
        f"GET /v3/{PROJECT}/edgemgr/pods was answered {status} IEF.777: so be it "
        f"(request id {error.request_id}). {error.advice}"
    ) == str(error)


# ---- the canary: what is looked at ---------------------------------------------------------------

CANARY = "canary-" + "Zq9xW7" * 350  # as long as a real token: two KiB
PIECE = re.compile(r"canary-|(?:zq9xw7){3}", re.IGNORECASE)
PLAIN = type(None) | bool | int | float | complex | type


def chain_of(error):
    """Return an error with all that it names as cause or context, and the members of groups."""
    chain, wanted = [], [error]
    while wanted:
        one = wanted.pop()
        if one is not None and one not in chain:
            chain.append(one)
            wanted += [one.__cause__, one.__context__, *getattr(one, "exceptions", ())]
    return chain


def values_in(thing, seen):
    """Return the texts of all that can be reached from a thing by attributes and items."""
    if isinstance(thing, PLAIN) or id(thing) in seen or len(seen) > 10_000:
        return []
    seen[id(thing)] = thing
    if isinstance(thing, str | bytes | bytearray):
        return [thing if isinstance(thing, str) else bytes(thing).decode("latin-1")]
    inside = list(getattr(thing, "__dict__", {}).values())
    slots = [getattr(kind, "__slots__", ()) for kind in type(thing).__mro__]
    for name in itertools.chain.from_iterable([s] if isinstance(s, str) else s for s in slots):
        inside.append(getattr(thing, name, None))
    if isinstance(thing, dict):
        inside += [*thing.keys(), *thing.values()]
    elif isinstance(thing, list | tuple | set | frozenset):
        inside += thing
    return [repr(thing), *(text for one in inside for text in values_in(one, seen))]


def locals_in(error):
    """Return what the locals of every frame of an error print."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        for name, value in frame.f_locals.items():
            try:
                yield f"{frame.f_code.co_qualname}: {name}", repr(value)
            except AttributeError:  # an object that its own __init__ has not finished
                yield f"{frame.f_code.co_qualname}: {name}", ""


def places_in(error):
    """Yield each place of an error and of its chain where a text may be read, with the text."""
    for number, one in enumerate(chain_of(error)):
        where = f"{type(one).__name__} {number}"
        yield f"{where} str", str(one)
        yield f"{where} repr", repr(one)
        yield f"{where} args", "\n".join(values_in(one.args, {}))
        yield f"{where} vars", "\n".join(values_in(vars(one), {}))
        yield f"{where} notes", "\n".join(getattr(one, "__notes__", ()))
        for name, text in locals_in(one):
            yield f"{where} local {name}", text
        if isinstance(one, IefError):
            yield f"{where} pickle", pickle.dumps(one, 0).decode("latin-1")
            yield f"{where} deep copy", repr(vars(copy.deepcopy(one)))
    yield "traceback", "".join(traceback.format_exception(error))
    try:
        walked = traceback.TracebackException.from_exception(error, capture_locals=True)
    except AttributeError:  # Python 3.11 stops at an object that is not finished
        return
    yield "traceback with locals", "".join(walked.format())


def leaks_in(error, records=(), warned=()):
    """Return the names of the places where a piece of the canary is seen."""
    places = [*places_in(error)]
    for record in records:
        places.append((f"log of {record.name}", record.getMessage()))
        places.append((f"log of {record.name}, its values", repr(vars(record))))
        if record.exc_info and record.exc_info[1]:
            places += places_in(record.exc_info[1])
    places += [("warning", repr(vars(warning))) for warning in warned]
    return [where for where, text in places if any(map(PIECE.search, meanings_of(text)))]


def meanings_of(text):
    """Return a text with what its escapes stand for."""
    unescaped = re.sub(r"\\{1,2}u([0-9a-f]{4})", lambda one: chr(int(one[1], 16)), text)
    decoded = re.findall("[A-Za-z0-9+/]{24,}", text)
    decoded = [base64.b64decode(one[: len(one) // 4 * 4]).decode("latin-1") for one in decoded]
    return [text, unescaped, unquote(text), html.unescape(text), *decoded]


def hidden_away():
    """Raise an error whose frame holds the canary."""
    local = [CANARY]
    message = f"it has {len(local)}"
    raise TransportError(message)


def caused(error):
    """Raise an error that an error with the canary led to."""
    try:
        Path(error).stat()
    except OSError:
        message = "harmless"
        raise TransportError(message) from None


PLANTED = {
    "str": lambda: IefError(f"sent {CANARY}"),
    "piece": lambda: IefError(f"sent {CANARY[:20]}"),
    "middle": lambda: IefError(f"sent {CANARY[100:130]}"),
    "lower": lambda: IefError(f"sent {CANARY.lower()}"),
    "note": lambda: IefError("x").add_note(CANARY),
    "attribute": lambda: vars(IefError("x")).update(headers={"t": [CANARY.encode()]}),
    "local": hidden_away,
    "context": lambda: caused(CANARY),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_canary_check_finds_what_is_planted(planted):
    """The check sees a leak in a text, a piece, a note, an attribute, a local, a context."""
    error = IefError("x")
    match planted:
        case "note":
            error.add_note(CANARY)
        case "attribute":
            error.headers = {"t": [CANARY.encode()]}
        case _:
            try:
                error = PLANTED[planted]()
            except TransportError as raised:
                error = raised

    assert leaks_in(error)


def test_canary_check_finds_what_is_logged_and_warned(caplog):
    """The check sees a leak in the arguments of a log record, and in a warning."""
    logging.getLogger("asyncio").warning("%d", 7, extra={"held": attrs.make_class("A", [])()})
    assert not leaks_in(IefError("x"), caplog.records)
    logging.getLogger("asyncio").warning("no more", extra={"held": {"token": CANARY}})
    assert leaks_in(IefError("x"), caplog.records)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        warnings.warn(CANARY, stacklevel=1)
    assert leaks_in(IefError("x"), warned=warned)


def test_canary_check_passes_what_is_clean():
    """The check finds nothing in an error that has nothing."""
    assert [] == leaks_in(made(PayloadError))


# ---- the canary: every error path ----------------------------------------------------------------


def head(*lines, status="200 OK"):
    """Return the head of an answer."""
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode()


def echoing(body, *, status=200):
    """Return a fault whose body is JSON."""
    return Fault.body(json.dumps(body).encode(), status=status)


# what a server may make of a secret that it sends back
ECHOES = {
    "json": "".join(f"\\u{ord(one):04x}" for one in CANARY),
    "url": "".join(f"%{ord(one):02X}" for one in CANARY),
    "html": "".join(f"&#{ord(one)};" for one in CANARY),
    "cut": CANARY[700:760],
    "split": " ".join(CANARY[at : at + 19] for at in range(0, 400, 19)),
    "lower": CANARY.lower(),
    "base64": base64.b64encode(b"a" + CANARY.encode()).decode(),
}


FAULTS = {
    # every fault that the server in the box knows
    **{f"mix-{number}-{fault.name}": fault for number, fault in enumerate(DEFAULT_MIX)},
    **{f"status-{s}": Fault.status(s) for s in (0, 204, 304, 400, 401, 403, 404, 408, 413, 501)},
    "throttle-long": Fault.throttle("86400"),
    "cut-reset": Fault.cut(reset=True),
    "cut-unframed": Fault.cut(framed=False),
    "cut-chunk": Fault.cut_chunk(),
    "bad-chunk": Fault.bad_chunk(),
    "around": Fault.around(after=b"more"),
    "gzip-cut": Fault.gzip_cut(),
    "gzip-plain": Fault.gzip_plain(),
    "gzip-crc": Fault.gzip_crc(),
    "gzip-bomb": Fault.gzip_bomb(8 << 20),
    "gzip-members": Fault.gzip_members(2_000),
    "redirect": Fault.redirect("/elsewhere"),
    "hang": Fault.hang(),
    "slow": Fault.slow(9),
    "drip": Fault.drip(0.05),
    "drip-head": Fault.drip(0.05, head=True),
    "long-header": Fault.headers(("X-Long", "x" * 9_000)),
    "encoded": Fault.headers(("Content-Encoding", "br")),
    "gigabytes": Fault.headers(("Content-Length", str(10 << 30))),
    "no-pods": Fault.body(b"{}"),
    "no-row": Fault.body(b'{"count": 1, "pods": [{"id": "a", "containers": 7}]}'),
    # a server that sends back what it was sent
    "echo-message": Fault.status(403, error_msg=f"bad token {CANARY}"),
    "echo-message-blanks": Fault.status(403, error_msg=f"a\n  b {CANARY}\t{CANARY}"),
    "echo-message-late": Fault.status(403, error_msg=f"{'x' * 500} {CANARY}"),
    "echo-code": Fault.status(403, error_code=CANARY),
    "echo-code-500": Fault.status(500, error_code=CANARY, shape="apigw"),
    "echo-iam": Fault.status(401, error_msg=CANARY, shape="iam"),
    "echo-escaped": Fault.body(
        b'{"error_msg": "\\u0063anary-%s"}' % CANARY[7:].encode(), status=400
    ),
    "echo-html": Fault.status(502, error_msg=CANARY, shape="html"),
    "echo-html-late": Fault.body(b"<html>" + b"x" * 180 + CANARY.encode(), status=403),
    "echo-html-200": Fault.body(f"<html>{CANARY}</html>".encode()),
    "echo-html-200-late": Fault.body(b"<html>" + b"x" * 180 + CANARY.encode()),
    "echo-html-twice": Fault.body(f"<p>{CANARY}</p><p>{CANARY}</p>".encode(), status=403),
    "echo-request-id": Fault.status(403, headers=[("X-Request-Id", CANARY)]),
    "echo-request-id-200": attrs.evolve(
        Fault.body(b"[]", headers=[("X-Request-Id", CANARY)]), name="body"
    ),
    "echo-request-id-row": Fault.body(
        b'{"count": 1, "pods": [{"id": "a", "containers": 7}]}',
        headers=[("X-Request-Id", CANARY)],
    ),
    "echo-body-request-id": Fault.raw(
        head(f"Content-Length: {len(CANARY) + 99}", status="403 No")
        + json.dumps({"error_msg": "no", "request_id": CANARY}).encode().ljust(len(CANARY) + 99)
    ),
    **{
        f"echo-{where}-{how}": Fault.status(403, **words(changed))
        for how, changed in ECHOES.items()
        for where, words in {
            "message": lambda text: {"error_msg": f"no {text} in here"},
            "code": lambda text: {"error_code": text},
            "html": lambda text: {"error_msg": text, "shape": "html"},
            "request-id": lambda text: {"headers": [("X-Request-Id", text[:6_000])]},
        }.items()
    },
    **{
        f"echo-request-id-200-{how}": Fault.body(b"[]", headers=[("X-Request-Id", changed[:6_000])])
        for how, changed in ECHOES.items()
    },
    "echo-headers": Fault.status(
        403, headers=[("X-Auth-Token", CANARY), ("Server", CANARY), ("WWW-Authenticate", CANARY)]
    ),
    "echo-headers-500": Fault.status(503, headers=[("X-Auth-Token", CANARY)]),
    "echo-headers-200": Fault.body(b"[]", headers=[("X-Auth-Token", CANARY)]),
    "echo-headers-cut": attrs.evolve(
        Fault.headers(("X-Auth-Token", CANARY)), keep=0.5, end="close", name="cut"
    ),
    "echo-cookie": Fault.status(403, headers=[("Set-Cookie", f"a={CANARY}; Path=/")]),
    "echo-retry-after": Fault.status(429, headers=[("Retry-After", CANARY)]),
    "echo-location": Fault.redirect(f"https://127.0.0.1/{CANARY}?t={CANARY}"),
    "echo-encoding": Fault.body(b"[]", headers=[("Content-Encoding", CANARY)]),
    "echo-type": Fault.body(b"[]", content_type=CANARY),
    "echo-reason": Fault.raw(head("Content-Length: 0", status=f"403 {CANARY}")),
    "echo-status-line": Fault.raw(f"HTTP/1.1 {CANARY}\r\n\r\n".encode()),
    "echo-bad-header": Fault.raw(head(f"Bad Header {CANARY}\0: {CANARY}")),
    "echo-bad-value": Fault.raw(head(f"X-Auth-Token: {CANARY}\0")),
    "echo-bad-chunk": Fault.raw(
        head("Transfer-Encoding: chunked") + f"{CANARY}\r\n{CANARY}\r\n".encode()
    ),
    "echo-garbage": Fault.raw(CANARY.encode()),
    "echo-half-head": Fault.raw(f"HTTP/1.1 200 OK\r\nX-Auth-Token: {CANARY}\r\n".encode()),
    "echo-key": echoing({"count": 1, "pods": [{"id": "a", CANARY: 1, "containers": {CANARY: 1}}]}),
    "echo-value": echoing({"count": 1, "pods": [{"id": "a", "containers": CANARY}]}),
    "echo-label": echoing({"count": 1, "pods": [{"id": "a", "configs": {"host_network": CANARY}}]}),
    "echo-label-key": echoing(
        {
            "count": 1,
            "pods": [
                {
                    "id": "a",
                    "affinity": {
                        "podAffinity": {
                            "requiredDuringSchedulingIgnoredDuringExecution": [
                                {"labelSelector": {"matchLabels": {CANARY: [1]}}}
                            ]
                        }
                    },
                }
            ],
        }
    ),
    "echo-count": echoing({"count": CANARY, "pods": []}),
    "echo-pods": echoing({"count": 1, "pods": CANARY}),
    "echo-id": echoing({"count": 1, "pods": [{"id": {CANARY: CANARY}}]}),
    "echo-error-200": echoing({"error_code": CANARY, "error_msg": CANARY}),
    "echo-nested": echoing({"error": {"code": CANARY, "message": CANARY}}, status=500),
}


@pytest.fixture
def watched(caplog, recwarn):
    """Record all logs at DEBUG and all warnings, and return what gives the leaks of an error."""
    caplog.set_level(logging.DEBUG)
    logging.getLogger("asyncio").setLevel(logging.DEBUG)
    warnings.simplefilter("always")

    def leaks(error):
        gc.collect(1)
        return leaks_in(error, caplog.records, recwarn.list)

    yield leaks
    logging.getLogger("asyncio").setLevel(logging.NOTSET)


@asynccontextmanager
async def canary_fleet(*faults, token=CANARY, **options):
    """Run a fake that serves only these faults, in turn, and a session with the canary."""
    asyncio.get_running_loop().set_debug(True)
    policies = {
        "retry": RetryPolicy(attempts=2, base=0, throttled_base=0),
        "limits": Limits(max_body_bytes=1 << 20),
        "timeout": Timeouts(connect=0.5, read=0.1, total=0.1),
        "credentials": Token(CANARY),
        "on_event": lambda event: logging.getLogger("events").debug("%r", event),
    }
    async with FakeIef(20, deployments=2, token=token) as fake:
        turns = itertools.cycle(faults)
        if faults:
            fake.intercept(lambda _: next(turns))
        async with session_with(fake, **{**policies, **options}) as ief:
            yield fake, ief


CALLS = {
    "list_pods": lambda ief: ief.list_pods(deployment_id="d"),
    "iter_pods": lambda ief: ief.iter_pods(["d", "e"], batch_size=1).collect(),
}


async def error_of(ief, via, kinds=IefError):
    """Return what a call ends with."""
    with pytest.raises(kinds) as caught:
        await CALLS[via](ief)
    return caught.value


@pytest.mark.parametrize("via", CALLS)
@pytest.mark.parametrize("name", FAULTS)
async def test_no_fault_brings_the_token_to_light(name, via, watched):
    """After any fault or echo no error, chain, log, event or warning shows it."""
    async with canary_fleet(FAULTS[name]) as (_, ief):
        error = await error_of(ief, via)

    assert [] == watched(error)


PROXY_ANSWERS = {
    "407": b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
    "403-echo": f"HTTP/1.1 403 not {CANARY}\r\n\r\n".encode(),
    "502-echo": f"HTTP/1.1 502 user:{CANARY}\r\nX-Echo: {CANARY}\r\n\r\n".encode(),
    "echo-status-line": f"HTTP/1.1 {CANARY}\r\n\r\n".encode(),
    "echo-garbage": CANARY.encode(),
    "echo-bad-header": head(f"Bad Header {CANARY}\0: {CANARY}"),
    "no-tls": b"HTTP/1.1 200 go ahead\r\n\r\n" + CANARY.encode(),
    "cut": b"HTTP/1.1 2",
    "nothing": b"",
}


@pytest.mark.parametrize("via", CALLS)
@pytest.mark.parametrize("name", PROXY_ANSWERS)
async def test_no_answer_of_a_proxy_brings_its_password_to_light(name, via, watched):
    """Whatever a proxy answers, no error, log or warning shows who may use it, nor the token."""

    async def handle(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(PROXY_ANSWERS[name])
        await writer.drain()

    async with (
        serving(handle) as port,
        IefSession(
            PROJECT,
            credentials=Token(CANARY),
            endpoint="https://other.invalid",
            proxy=f"http://user:{CANARY}@127.0.0.1:{port}",
            retry=RetryPolicy(attempts=2, base=0),
        ) as ief,
    ):
        error = await error_of(ief, via)
        assert CANARY not in repr(vars(ief._transport.connections))

    assert TransportError is type(error)
    assert [] == watched(error)


@pytest.mark.parametrize("via", CALLS)
async def test_refused_token_stays_hidden(via, watched):
    """A 401 for a token that the server does not know does not show it."""
    async with canary_fleet(token="another", timeout=Timeouts()) as (_, ief):
        error = await error_of(ief, via)

    assert AuthenticationError is type(error)
    assert [] == watched(error)


@pytest.mark.parametrize("via", CALLS)
async def test_refused_connection_keeps_the_token_hidden(via, watched):
    """A connection that is refused does not show it."""
    async with canary_fleet() as (fake, _):
        endpoint = fake.endpoint
    options = {"credentials": Token(CANARY), "retry": RetryPolicy(attempts=2, base=0)}
    async with IefSession(PROJECT, endpoint=endpoint, **options) as ief:
        error = await error_of(ief, via)

    assert TransportError is type(error)
    assert [] == watched(error)


@pytest.mark.parametrize("via", CALLS)
async def test_refused_certificate_keeps_the_token_hidden(via, watched):
    """A certificate that is not trusted does not show it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(SAMPLES / "other_invalid.pem")
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0, ssl=context)
    endpoint = "https://127.0.0.1:{1}".format(*server.sockets[0].getsockname())
    async with server, IefSession(PROJECT, endpoint=endpoint, credentials=Token(CANARY)) as ief:
        error = await error_of(ief, via)

    assert TransportError is type(error)
    assert [] == watched(error)


@pytest.mark.parametrize("via", CALLS)
async def test_silent_handshake_keeps_the_token_hidden(via, watched):
    """Timeouts(connect=) that is over does not show it."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = "https://127.0.0.1:{1}".format(*silent.getsockname())
        options = {"timeout": Timeouts(connect=0.05), "retry": RetryPolicy(attempts=1)}
        async with IefSession(
            PROJECT, endpoint=endpoint, credentials=Token(CANARY), **options
        ) as ief:
            error = await error_of(ief, via)

    assert "Timeouts(connect=)" in str(error)
    assert [] == watched(error)


@pytest.mark.parametrize("via", CALLS)
@pytest.mark.parametrize("name", ["read", "total"])
async def test_timeout_keeps_the_token_hidden(name, via, watched):
    """Timeouts(read=) or Timeouts(total=) that is over does not show it."""
    times = Timeouts(**{name: 0.05})
    async with canary_fleet(Fault.hang(), timeout=times) as (_, ief):
        error = await error_of(ief, via)

    assert f"Timeouts({name}=)" in str(error)
    assert [] == watched(error)


async def test_deadline_of_a_scan_keeps_the_token_hidden(watched):
    """A deadline in mid-request does not show it."""
    async with canary_fleet(Fault.hang(), timeout=Timeouts()) as (_, ief):
        with pytest.raises(TransportError, match="deadline") as caught:
            await ief.iter_pods(["d"], deadline=0.05).collect()

    assert [] == watched(caught.value)


async def test_deadline_of_a_request_keeps_the_token_hidden(watched):
    """The deadline that a scan hands to its requests does not show it either."""
    async with canary_fleet(Fault.hang(), timeout=Timeouts()) as (_, ief):
        late = ief._transport.clock.now() + 0.05
        with pytest.raises(TransportError, match="deadline") as caught:
            await ief._transport.get("/v3?node_id=n", len, deadline=late)

    assert [] == watched(caught.value)


@pytest.mark.parametrize("via", CALLS)
async def test_cancellation_keeps_the_token_hidden(via, watched):
    """A CancelledError, which tools report as well, passes no frame that holds it."""
    async with canary_fleet(Fault.hang(), timeout=Timeouts()) as (fake, ief):
        task = asyncio.create_task(CALLS[via](ief))
        await until(lambda: fake.statistics().in_flight)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task

    assert [] == watched(caught.value)


@pytest.mark.parametrize("via", CALLS)
async def test_timeout_of_the_caller_keeps_the_token_hidden(via, watched):
    """The caller's own asyncio.timeout comes of our cancellation, and that is clean."""
    async with canary_fleet(Fault.hang(), timeout=Timeouts()) as (_, ief):
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(0.05):
                await CALLS[via](ief)

    # its cause since Python 3.11.3, its context alone before
    assert asyncio.CancelledError is type(caught.value.__context__)
    assert [] == watched(caught.value)


@pytest.mark.parametrize("via", CALLS)
async def test_cancellation_in_mid_body_keeps_the_token_hidden(via, watched):
    """Cancelled while a body arrives, and while a repeat is waited for: likewise."""
    slow = RetryPolicy(attempts=3, base=9, throttled_base=9)
    for fault in (Fault.drip(0.05), Fault.status(500)):
        async with canary_fleet(fault, timeout=Timeouts(), retry=slow) as (fake, ief):
            task = asyncio.create_task(CALLS[via](ief))
            await until(lambda: fake.statistics().requests)
            await turns()  # a byte, or the answer, comes
            task.cancel()
            with pytest.raises(asyncio.CancelledError) as caught:
                await task

        assert [] == watched(caught.value)


@pytest.mark.parametrize("via", CALLS)
async def test_closed_session_keeps_the_token_hidden(via, watched):
    """A session that is closed before or during a request does not show it."""
    async with canary_fleet(Fault.hang(), timeout=Timeouts()) as (fake, ief):
        task = asyncio.create_task(CALLS[via](ief))
        await until(lambda: fake.statistics().in_flight)
        await ief.aclose()
        with pytest.raises(ConfigurationError, match="closed") as during:
            await task
        after = await error_of(ief, via)

    assert [] == watched(during.value)
    assert [] == watched(after)


@pytest.mark.parametrize("via", CALLS)
async def test_closed_borrowed_session_keeps_the_token_hidden(via, watched):
    """A borrowed session whose owner closes it during a request does not show it."""
    async with aiohttp.ClientSession() as http:
        options = {"http": http, "timeout": Timeouts()}
        async with canary_fleet(Fault.hang(), **options) as (fake, ief):
            task = asyncio.create_task(CALLS[via](ief))
            await until(lambda: fake.statistics().in_flight)
            await http.close()
            with pytest.raises(IefError) as caught:
                await task

    assert [] == watched(caught.value)


async def wrong_ids(ief):
    """Give list_pods no id."""
    await ief.list_pods()


async def wrong_limit(ief):
    """Give list_pods a limit that is none."""
    await ief.list_pods(node_id="n", limit=0)


async def wrong_option(ief):
    """Give with_options what it does not know."""
    ief.with_options(region="x")


async def wrong_stream(ief):
    """Iterate a stream twice."""
    stream = ief.iter_pods([])
    await stream.collect()
    await stream.collect()


@pytest.mark.parametrize("use", [wrong_ids, wrong_limit, wrong_option, wrong_stream])
async def test_wrong_use_keeps_the_token_hidden(use, watched):
    """A call that is refused unsent does not show the token of its session."""
    async with canary_fleet() as (_, ief):
        with pytest.raises(ConfigurationError) as caught:
            await use(ief)

    assert [] == watched(caught.value)


WRONG_OPTIONS = {
    "project": {"project_id": "a/b"},
    "region": {"endpoint": None, "region": "x"},
    "endpoint": {"endpoint": "http://example.com"},
    "retry": {"retry": 3},
    "http": {"http": "x"},
}


def refused_session(**options):
    """Return the error that a session with the canary is refused with."""
    fixed = {"project_id": PROJECT, "credentials": Token(CANARY), "endpoint": "http://127.0.0.1:9"}
    with pytest.raises(ConfigurationError) as caught:
        IefSession(**{**fixed, **options})
    return caught.value


@pytest.mark.parametrize("name", WRONG_OPTIONS)
def test_wrong_session_keeps_the_token_hidden(name, watched):
    """A constructor that refuses one argument does not show the token in another."""
    assert [] == watched(refused_session(**WRONG_OPTIONS[name]))


@pytest.mark.parametrize("endpoint", ["https://me:{}@example.com", "https://example.com/?t={}"])
def test_secret_in_an_endpoint_is_not_repeated(endpoint):
    """The refusal of an endpoint with a password or a query does not print either."""
    error = refused_session(endpoint=endpoint.format(CANARY[:60]))

    assert "example.com" in str(error)
    assert not PIECE.search(repr(error))
    assert not PIECE.search(str(vars(error)))


async def test_good_answers_do_not_log_the_token(watched):
    """Calls that end well log and warn of nothing that shows it, asyncio's debug mode on."""
    async with canary_fleet() as (fake, ief):
        page = await ief.list_pods(deployment_ids=fake.deployment_ids)
        await ief.iter_pods(fake.deployment_ids).collect()

    assert [] == watched(IefError("none"))
    assert not PIECE.search(repr((page, ief, ief.statistics())))


# ---- the canary: every other secret --------------------------------------------------------------


def credentials_with(secret, fake):
    """Return credentials of which one part is the canary."""
    user = {"domain": "d", "user": "u", "password": CANARY, "project": "cn-north-4"}
    return {
        "password": PasswordCredentials(**user),
        "passcode": PasswordCredentials(**{**user, "password": "p"}, user_id="i", passcode=CANARY),
        "secret_key": AccessKey(fake.access_key, CANARY),
        "access_key": AccessKey(CANARY, fake.secret_key),
        "security_token": AccessKey(fake.access_key, "wrong-secret-key", CANARY),
        "issued_token": PasswordCredentials(
            domain=fake.domain, user=fake.user, password=fake.password
        ),
    }[secret]


SECRETS = ("password", "passcode", "secret_key", "access_key", "security_token", "issued_token")


def test_every_secret_of_every_kind_is_the_canary_once():
    """No field of credentials holds a secret that is not searched for: a token's value is above."""
    assert secret_fields() == {"value", *SECRETS} - {"issued_token"}


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("name", [*FAULTS, None])
async def test_no_fault_brings_any_secret_to_light(name, secret, watched):
    """Whatever the secret, IAM's and IEF's every fault and echo leaves it hidden."""
    async with FakeIef(20, deployments=2) as fake:
        credentials = credentials_with(secret, fake)
        issued = Fault.body(b"{}", status=201, headers=[("X-Subject-Token", CANARY)])

        def answer(request):
            if secret == "issued_token" and request.path.endswith("/tokens"):
                return issued
            return FAULTS[name] if name else None

        fake.intercept(answer)
        options = {
            "retry": RetryPolicy(attempts=2, base=0, throttled_base=0),
            "limits": Limits(max_body_bytes=1 << 20),
            "timeout": Timeouts(connect=0.5, read=0.1, total=0.1),
            "iam_endpoint": fake.endpoint,
        }
        async with session_with(fake, credentials=credentials, **options) as ief:
            error = await error_of(ief, "iter_pods")

    assert [] == watched(error)


@pytest.mark.parametrize("secret", SECRETS)
async def test_looked_up_project_keeps_secrets_hidden(secret, watched):
    """A project lookup that is refused, or finds several, shows nothing."""
    async with FakeIef(
        5, account=Account(projects=[{"id": "a" * 32, "name": "cn-north-4"}] * 2)
    ) as fake:
        options = {"endpoint": fake.endpoint, "iam_endpoint": fake.endpoint}
        options["credentials"] = credentials_with(secret, fake)
        async with IefSession(region="cn-north-4", **options) as ief:
            error = await error_of(ief, "list_pods")

    assert [] == watched(error)


@pytest.mark.parametrize("secret", SECRETS)
async def test_session_of_any_secret_shows_none(secret):
    """Neither a session nor what it holds prints a secret, nor can it be pickled."""
    async with FakeIef(5) as fake:
        credentials = credentials_with(secret, fake)
        async with session_with(fake, credentials=credentials) as ief:
            shown = repr([ief, vars(ief), ief._transport, vars(ief._transport.provider)])
            with pytest.raises(TypeError):
                pickle.dumps(ief)

    assert not PIECE.search(shown)
