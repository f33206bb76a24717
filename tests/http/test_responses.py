"""What an answer that says no means: read, classified and worded, without a server."""

import json
import math
import re
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from ief_async import (
    ApiError,
    AuthenticationError,
    BadRequestError,
    NotFoundError,
    PayloadError,
    PermissionDeniedError,
    RetryPolicy,
    ServerError,
    ThrottledError,
    TransportError,
)
from ief_async._http.responses import (
    RULES,
    Failure,
    Refusal,
    classify_refusal,
    has_error_code,
    is_retried,
    parse_refusal,
    retry_after_seconds,
    shown,
    window_seconds,
    word_refusal,
)
from ief_async._texts import RUN

NOW = 1_800_000_000.0
FULL = "policy user over ratelimit,limit:60,time:1 minute"
ASK = "Ask for the credentials."
REDIRECTED = "Redirects are not followed, as they would carry credentials away: check the endpoint."


def headers_of(*pairs):
    """Return headers as an answer has them."""
    return CIMultiDictProxy(CIMultiDict(pairs))


def parsed(status, body=b"", *headers, **options):
    """Return what an answer says."""
    return parse_refusal(status, headers_of(*headers), body, now=NOW, **options)


# ---- what an answer says -------------------------------------------------------------------------

# whose error body, status, body: the code, message and request id that it says
BODIES = {
    "IEF": (400, b'{"error_code":"IEF.100004","error_msg":"m"}', ("IEF.100004", "m", None)),
    "public gateway": (
        401,
        b'{"error_msg":"m","error_code":"APIGW.0301","request_id":"r"}',
        ("APIGW.0301", "m", "r"),
    ),
    "dedicated gateway": (
        502,
        b'{"error_msg":"m","error_code":"APIG.0202","request_id":"r"}',
        ("APIG.0202", "m", "r"),
    ),
    "IAM v3": (
        401,
        b'{"error":{"code":401,"message":"m","title":"Unauthorized"}}',
        ("401", "m", None),
    ),
    "IAM v3.0": (403, b'{"error_msg":"m","error_code":"IAM.0011"}', ("IAM.0011", "m", None)),
    "IAM v5": (
        403,
        b'{"error_msg":"m","error_code":"IAM.1","encoded_authorization_message":"x"}',
        ("IAM.1", "m", None),
    ),
    "camel case": (400, b'{"errorCode":"A","errorMsg":"m"}', ("A", "m", None)),
    "plain names": (400, b'{"code":"A","message":"m"}', ("A", "m", None)),
    "nested": (400, b'{"error":{"error_code":"A","error_msg":"m"}}', ("A", "m", None)),
    "message alone": (400, b'{"error_msg":"m"}', ("", "m", None)),
    "code alone": (400, b'{"error_code":"A"}', ("A", "", None)),
    "balancer": (503, b"<html><h1>Oh  no</h1>", ("", "<html><h1>Oh no</h1>", None)),
    "nothing": (504, b"", ("", "", None)),
    "list": (400, b"[]", ("", "[]", None)),
    "null": (400, b"null", ("", "null", None)),
    "empty object": (400, b"{}", ("", "{}", None)),
    "error is a number": (400, b'{"error":7}', ("", '{"error":7}', None)),
    "code is a list": (400, b'{"code":[]}', ("", '{"code":[]}', None)),
    "too deep": (400, b"[" * 100_000, ("", "[" * 200, None)),
    "too long a number": (400, b"9" * 5_000, ("", "9" * 200, None)),
}


@pytest.mark.parametrize(("status", "body", "said"), BODIES.values(), ids=BODIES)
def test_every_documented_error_body_is_read(status, body, said):
    """Code, message and request id of every known body are read; of others their beginning."""
    refusal = parsed(status, body)

    assert (status, *said) == (
        refusal.status,
        refusal.code,
        refusal.message,
        refusal.request_id,
    )
    assert bool(said[0]) == has_error_code(body)


@given(st.binary(max_size=60))
def test_any_body_is_a_refusal(body):
    """Whatever bytes come with a status, they are read without an exception."""
    assert 500 == parsed(500, body).status


def test_unknown_body_that_may_hold_a_key_is_not_shown():
    """Of an answer to a request for a key only the message of a known error body is shown."""
    assert "" == parsed(401, b"new-key", quotable=False).message
    assert "m" == parsed(401, b'{"error_msg":"m"}', quotable=False).message


def test_request_id_of_the_header_wins():
    """The body's request id counts only where the header names none."""
    body = b'{"error_code":"A","request_id":"in-body"}'

    assert "in-header" == parsed(400, body, ("x-request-id", "in-header")).request_id
    assert "in-body" == parsed(400, body, ("X-Request-Id", "")).request_id
    assert None is parsed(400, b"").request_id


def test_secret_is_taken_out_of_everything_that_is_said():
    """Code, message, request id and the beginning of a body go through `scrub`."""
    body = json.dumps({"error_code": "SECRET", "error_msg": "SECRET", "request_id": "SECRET"})

    def scrub(text):
        return text.replace("SECRET", "***")

    assert "SECRET" not in repr(parsed(401, body.encode(), scrub=scrub))
    assert "SECRET" not in repr(parsed(401, b"SECRET", ("X-Request-Id", "SECRET"), scrub=scrub))


def test_what_is_shown_is_cut():
    """Code and request id have 64 characters at most, the message 512."""
    body = json.dumps({"error_code": "c" * 999, "error_msg": "m" * 999, "request_id": "r" * 999})
    refusal = parsed(400, body.encode())

    assert (64, 512, 64) == (
        len(refusal.code),
        len(refusal.message),
        len(refusal.request_id),
    )


@pytest.mark.parametrize("length", [8_191, 8_192])
def test_text_is_scrubbed_before_it_is_cut(length):
    """Half a secret at the end of what was looked through is not shown."""
    text = " " * (length - 8) + "the-secret-that-was-sent"

    assert "" == shown(text, 99, lambda said: said.replace("the-secret-that-was-sent", ""))


@pytest.mark.parametrize(("length", "kept"), [(8_191, 8_191), (8_192, 8_192), (8_193, 8_192 - RUN)])
def test_text_that_is_looked_through_in_part_loses_the_end_of_that_part(length, kept):
    """Of a text of more than 8 KiB the end of what was looked through may be half a secret."""
    assert kept == len(shown("x" * length, 10_000, str))


def test_clock_is_compared_with_the_servers():
    """The skew is how far this machine's clock is ahead of the answer's Date."""
    assert 60.0 == parsed(401, b"", ("Date", formatdate(NOW - 60, usegmt=True))).skew
    assert 0.0 == parsed(401, b"").skew


@pytest.mark.parametrize(
    ("code", "headers", "asked"),
    [
        ("APIGW.0308", (), (60.0, 60.0)),
        ("APIG.0308", (), (60.0, 60.0)),
        ("APIGW.0308", (("Retry-After", "7"),), (7.0, None)),
        ("APIGW.0308", (("Retry-After", "soon"),), (60.0, 60.0)),
        ("APIGW.0301", (), (None, None)),
        ("", (), (None, None)),
        ("", (("Retry-After", formatdate(NOW + 30, usegmt=True)),), (30.0, None)),
        ("", (("Retry-After", "2"), ("Retry-After", "3"), ("Retry-After", "x")), (3.0, None)),
    ],
)
def test_wait_is_read_from_headers_or_from_the_text_of_a_full_quota(code, headers, asked):
    """The longest Retry-After counts; without one the window that the gateway's text names."""
    body = json.dumps({"error_code": code, "error_msg": FULL}).encode()
    refusal = parsed(429, body, *headers)

    assert asked == (refusal.retry_after, refusal.window)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("2", 2.0),
        (" 7 ", 7.0),
        ("0", 0.0),
        ("1000000000", 1e9),
        ("9" * 400, 999_999_999_999_999_999.0),
        ("Thu, 01 Jan 1970 00:01:00 GMT", 60.0),
        ("Thursday, 01-Jan-70 00:01:00 GMT", 60.0),
        ("Thu Jan  1 00:01:00 1970", 60.0),
        ("Thu, 01 Jan 1970 02:01:00 +0200", 60.0),
        ("Wed, 31 Dec 1969 23:59:00 GMT", 0.0),
        *[(text, None) for text in ["", None, "-1", "nan", "inf", "5s", "5, 6", "1.5", "1e3", "٣"]],
        ("Thu, 99 Foo 1970 00:01:00 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header, seconds):
    """Digits are seconds, three forms of a date are understood, anything else is not there."""
    assert seconds == retry_after_seconds(header, now=0.0)


QUOTA = "The throttling threshold has been reached: policy user over ratelimit,limit:60,time:"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (QUOTA + "1 minute", 60.0),
        (QUOTA + "5 minute", 300.0),
        (QUOTA + "15 minutes", 900.0),
        (QUOTA + "1 second", 1.0),
        (QUOTA + "30 seconds", 30.0),
        (QUOTA + "1 s", 1.0),
        (QUOTA + "2 hour", 7_200.0),
        (QUOTA + "1 day", 86_400.0),
        ("Limit: 60, Time: 1 Minute", 60.0),
        ("limit = 60 , TIME = 10SECONDS;", 10.0),
        ("limit:9,time:1 second; limit:60,time:1 minute", 60.0),
        ("limit:60,time:500 ms", None),
        ("limit:60,time:1", None),
        ("limit:60,time:0 minute", None),
        ("limit:60,time:-1 minute", None),
        ("limit:60,time:1e9 minute", None),
        ("limit:60,time:nan minute", None),
        ("limit:60,time:" + "9" * 40 + " day", None),
        ("limit:60,time:\u0663 minute", None),
        ("uptime:1 minute", None),
        ("a long time ago", None),
        ("", None),
    ],
)
def test_window_is_a_number_of_a_unit(text, seconds):
    """A window is a whole number of seconds, minutes, hours or days, in any case and spacing."""
    assert seconds == window_seconds(text)


@pytest.mark.parametrize(
    ("units", "seconds"),
    [
        ("s sec secs second seconds", 1.0),
        ("m min mins minute minutes", 60.0),
        ("h hr hrs hour hours", 3_600.0),
        ("d day days", 86_400.0),
    ],
)
def test_every_unit_of_a_window_is_known(units, seconds):
    """Each way to write seconds, minutes, hours and days is read."""
    assert {seconds} == {window_seconds(f"time:1 {unit}") for unit in units.split()}


def test_longest_window_is_a_finite_number():
    """No text makes a window that is infinite, or that takes long to be read."""
    assert math.isfinite(window_seconds("time:999999999 days"))
    assert window_seconds("time: " * 10_000 + "time:" + " " * 60_000 + "1 minute") is None


# ---- what it means -------------------------------------------------------------------------------

# status, code: the error, whether it is sent again, where the fault lies
MEANINGS = {
    # IEF's own
    "IEF.011002": (400, "IEF.011002", BadRequestError, False, "request"),
    "IEF.011005": (400, "IEF.011005", AuthenticationError, False, "credentials"),
    "IEF.100001": (400, "IEF.100001", BadRequestError, False, "request"),
    "IEF.100004": (400, "IEF.100004", BadRequestError, False, "request"),
    "IEF.100005": (400, "IEF.100005", BadRequestError, False, "request"),
    "IEF.100158": (500, "IEF.100158", ServerError, True, "service"),
    "IEF.310001": (400, "IEF.310001", AuthenticationError, False, "credentials"),
    "IEF.310002": (400, "IEF.310002", AuthenticationError, False, "credentials"),
    "IEF.310002 with 401": (401, "IEF.310002", AuthenticationError, False, "credentials"),
    "IEF.310003": (500, "IEF.310003", ServerError, True, "service"),
    "IEF.330000": (500, "IEF.330000", ServerError, True, "service"),
    # the gateway's: as the status says
    "0101": (404, "APIGW.0101", NotFoundError, False, "request"),
    "0103 of APIG": (500, "APIG.0103", ServerError, True, "service"),
    "0104": (400, "APIGW.0104", BadRequestError, False, "request"),
    "0201 400": (400, "APIGW.0201", BadRequestError, False, "request"),
    "0201 413": (413, "APIGW.0201", BadRequestError, False, "request"),
    "0201 414": (414, "APIGW.0201", BadRequestError, False, "request"),
    "0201 494": (494, "APIGW.0201", BadRequestError, False, "request"),
    "0201 500": (500, "APIGW.0201", ServerError, True, "service"),
    "0201 502": (502, "APIGW.0201", ServerError, True, "service"),
    "0201 504": (504, "APIGW.0201", ServerError, True, "service"),
    "0202": (502, "APIG.0202", ServerError, True, "service"),
    "0203": (504, "APIG.0203", ServerError, True, "service"),
    "0301": (401, "APIGW.0301", AuthenticationError, False, "credentials"),
    "0302": (403, "APIGW.0302", PermissionDeniedError, False, "request"),
    "0307": (401, "APIGW.0307", AuthenticationError, False, "credentials"),
    "0308": (429, "APIGW.0308", ThrottledError, True, "service"),
    # the gateway's in a 200: as the code says, and never again
    "0101 in a 200": (200, "APIGW.0101", NotFoundError, False, "request"),
    "0103 in a 200": (200, "APIGW.0103", NotFoundError, False, "request"),
    "0301 in a 200": (200, "APIGW.0301", AuthenticationError, False, "credentials"),
    "0302 in a 200": (200, "APIGW.0302", PermissionDeniedError, False, "request"),
    "0303 in a 200": (200, "APIGW.0303", AuthenticationError, False, "credentials"),
    "0304 in a 200": (200, "APIGW.0304", PermissionDeniedError, False, "request"),
    "0305 in a 200": (200, "APIGW.0305", AuthenticationError, False, "credentials"),
    "0306 in a 200": (200, "APIGW.0306", PermissionDeniedError, False, "request"),
    "0307 in a 200": (200, "APIG.0307", AuthenticationError, False, "credentials"),
    "0308 in a 200": (200, "APIGW.0308", ThrottledError, False, "request"),
    "0310 in a 200": (200, "APIGW.0310", PermissionDeniedError, False, "request"),
    "0401 in a 200": (200, "APIGW.0401", PermissionDeniedError, False, "request"),
    "0402 in a 200": (200, "APIGW.0402", PermissionDeniedError, False, "request"),
    "IEF.310002 in a 200": (200, "IEF.310002", AuthenticationError, False, "credentials"),
    "IEF.100001 in a 200": (200, "IEF.100001", ApiError, False, "request"),
    # statuses without a code
    "0": (0, "", ApiError, False, "request"),
    "101": (101, "", ApiError, False, "request"),
    "204": (204, "", ApiError, False, "request"),
    "301": (301, "", ApiError, False, "endpoint"),
    "302": (302, "", ApiError, False, "endpoint"),
    "303": (303, "", ApiError, False, "endpoint"),
    "304": (304, "", ApiError, False, "request"),
    "307": (307, "", ApiError, False, "endpoint"),
    "308": (308, "", ApiError, False, "endpoint"),
    "400": (400, "", BadRequestError, False, "request"),
    "401": (401, "", AuthenticationError, False, "credentials"),
    "403": (403, "", PermissionDeniedError, False, "request"),
    "404": (404, "", NotFoundError, False, "request"),
    "405": (405, "", ApiError, False, "request"),
    "408": (408, "", ApiError, True, "service"),
    "429": (429, "", ThrottledError, True, "service"),
    "499": (499, "", ApiError, False, "request"),
    "500": (500, "", ServerError, True, "service"),
    "501": (501, "", ServerError, False, "service"),
    "502": (502, "", ServerError, True, "service"),
    "503": (503, "", ServerError, True, "service"),
    "504": (504, "", ServerError, True, "service"),
    "505": (505, "", ServerError, False, "service"),
    "599": (599, "", ServerError, False, "service"),
    "600": (600, "", ApiError, False, "request"),
}


@pytest.mark.parametrize(
    ("status", "code", "error", "retried", "fault"), MEANINGS.values(), ids=MEANINGS
)
def test_every_documented_refusal_is_classified(status, code, error, retried, fault):
    """The status decides, a code of a token with a 400, and the gateway's code with a 200."""
    verdict = classify_refusal(status, code)

    assert (error, retried, fault) == (verdict.error, verdict.retried, verdict.fault)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 501])
def test_final_refusal_of_a_key_is_the_fault_of_the_credentials(status):
    """Whoever refuses to give a key is not IEF: what was given to get one has to change."""
    assert "credentials" == classify_refusal(status, "", for_key=True).fault


@pytest.mark.parametrize(("status", "fault"), [(503, "service"), (302, "endpoint")])
def test_passing_failure_of_a_key_is_not_the_fault_of_the_credentials(status, fault):
    """An IAM that is down, or that leads elsewhere, says nothing of the password."""
    assert fault == classify_refusal(status, "", for_key=True).fault


def test_every_retried_status_is_among_the_meanings():
    """No status is retried that is not classified above."""
    assert {one for one in RETRIED if isinstance(one, int)} == {
        status for status, code, _, again, _ in MEANINGS.values() if again and not code
    }


def test_documented_statuses_are_those_that_are_retried():
    """`RetryPolicy` tells users of the statuses in the table, and of no others."""
    (told,) = re.findall(r"status (\d[\d, ]+ and \d+)", " ".join(RetryPolicy.__doc__.split()))

    assert {one for one in RETRIED if isinstance(one, int)} == {*map(int, re.findall(r"\d+", told))}


RETRIED = {
    *(408, 429, 500, 502, 503, 504),
    *(Failure.UNKNOWN_NAME, Failure.LOOKUP, Failure.PROXY_NAME, Failure.TLS),
    *(Failure.CONNECT_TIMEOUT, Failure.READ_TIMEOUT, Failure.TOTAL_TIMEOUT),
    *(Failure.PROXY_CONNECTION, Failure.CONNECTION, Failure.SYSTEM, Failure.PROXY_FAILED),
    *(Failure.DROPPED, Failure.DAMAGED, Failure.NOT_HTTP, Failure.INCOMPLETE),
    *(Failure.NOT_JSON, Failure.UNEXPECTED_OK),
}


def test_table_of_what_is_retried_has_every_failure():
    """No failure is without a rule, and what is retried is what this test says."""
    assert {*Failure} < {*RULES}
    assert {reason for reason in RULES if is_retried(reason)} == RETRIED
    assert not is_retried(418)


def test_each_failure_has_a_class_and_words_of_its_own():
    """Failures of the network are TransportErrors, of a body PayloadErrors; no two read alike."""
    kinds = {failure: RULES[failure].error for failure in Failure}

    assert {TransportError, PayloadError} == {*kinds.values()}
    assert {Failure.NOT_JSON, Failure.UNEXPECTED_OK, Failure.WRONG_BODY} == {
        failure for failure, error in kinds.items() if error is PayloadError
    }
    assert len({failure.value for failure in Failure}) == len(Failure.__members__)


# ---- how it reads --------------------------------------------------------------------------------


def worded(status, code="", *, for_key=False, **said):
    """Return the text of an answer."""
    refusal = Refusal(status=status, code=code, **said)
    verdict = classify_refusal(status, code, for_key=for_key)
    return word_refusal(refusal, verdict, request="GET /pods", credentials=ASK)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            worded(400, "IEF.100004", message="bad offset", request_id="r1"),
            "GET /pods was answered 400 IEF.100004: bad offset (request id r1). "
            + BadRequestError.advice,
        ),
        (worded(500), f"GET /pods was answered 500. {ServerError.advice}"),
        (worded(401, "401", message="no"), f"GET /pods was answered 401: no. {ASK}"),
        (worded(302), f"GET /pods was answered 302. {REDIRECTED}"),
        (worded(302, for_key=True), f"GET /pods was answered 302. {REDIRECTED}"),
        (worded(403, for_key=True), f"GET /pods was answered 403. {ASK}"),
        (worded(503, for_key=True), f"GET /pods was answered 503. {ServerError.advice}"),
        (worded(403), f"GET /pods was answered 403. {PermissionDeniedError.advice}"),
    ],
)
def test_text_says_what_was_answered_to_which_request_and_what_to_do(text, expected):
    """The status, the code unless it is the status, the message, the request id, the advice."""
    assert expected == text
