"""Tokens and secrets: what is refused, and that nothing shows them."""

import copy
import json
import logging
import pickle
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import attrs
import pytest
from asking import locals_of
from conftest import examples, secret_fields
from hypothesis import given, settings
from hypothesis import strategies as st

from ief_async import (
    AccessKey,
    ConfigurationError,
    IefSession,
    PasswordCredentials,
    Token,
)
from ief_async._auth.keys import Secret, clock_skew
from ief_async._messages import Reply, Request
from ief_async.testing import sign

VALUE = "canary-MIIDkgYJKoZIhvcNAQcCoIIDgzCCA38CAQExDTALBglghkgBZQMEAgEwggE0+/=="
PROJECT = "bcd83056c918480f8f190844bd425b23"

REFUSED = {
    "empty": "",
    "blank": " ",
    "newline-at-the-end": f"{VALUE}\n",
    "crlf": f"{VALUE}\r\nX-Evil: 1",
    "cr": f"{VALUE}\r",
    "nul": f"{VALUE}\0",
    "del": f"{VALUE}\x7f",
    "blank-before": f" {VALUE}",
    "blank-behind": f"{VALUE} ",
    "blank-within": f"{VALUE} {VALUE}",
    "tab": f"{VALUE}\t",
    "latin": f"{VALUE}é",
    "chinese": f"{VALUE}令牌",
    "full-width": f"{VALUE}\uff11",
    "lone-surrogate": f"{VALUE}\ud800",
    "bytes": VALUE.encode(),
    "none": None,
    "int": 20_361_120,
    "list": [VALUE],
    "token": Token(VALUE),
}


def refusal_of(name):
    """Return the error that a value is refused with."""
    with pytest.raises(ConfigurationError) as caught:
        Token(REFUSED[name])
    return caught.value


@pytest.mark.parametrize("name", REFUSED)
def test_value_that_no_header_can_carry_is_refused_unshown(name):
    """Whatever is not printable ASCII without blanks is refused; the text never shows it."""
    error = refusal_of(name)

    assert ConfigurationError is type(error)
    for text in (str(error), repr(error), repr(vars(error))):
        assert "canary" not in text
        assert "20361120" not in text
    assert str(error).startswith("Token must ")
    assert error.__cause__ is None
    assert error.__context__ is None


@pytest.mark.parametrize("name", REFUSED)
def test_refused_value_is_in_no_frame_of_the_library(name):
    """A debugger's walk over the frames of the refusal, locals included, does not show it."""
    shown = locals_of(refusal_of(name))

    assert len(shown) > 1
    assert not [local for local in shown if "canary" in local or "20361120" in local]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("newline-at-the-end", "line end"),
        ("blank-behind", "blank"),
        ("bytes", "must be a string, got bytes"),
        ("none", "must be a string, got NoneType"),
        ("empty", "empty"),
    ],
)
def test_refusal_says_what_was_given(name, words):
    """The text tells an empty value, a foreign type and a stray newline apart."""
    assert words in str(refusal_of(name))


@pytest.mark.parametrize("value", ["t", "!", "~", VALUE, "x" * 32_768], ids=len)
def test_value_that_a_header_can_carry_is_taken(value):
    """From one character to 32 KiB, every printable ASCII character is sent as it is."""
    request = Request(url="https://ief.example.com/")

    assert {"X-Auth-Token": value} == Token(value).headers(request, now=0)
    assert {"X-Auth-Token": value} == Token(Secret(value)).headers(request, now=0)


SECRETIVE = {
    "access_key": lambda value: AccessKey(value, "s"),
    "secret_key": lambda value: AccessKey("a", value),
    "security_token": lambda value: AccessKey("a", "s", value),
    "password": lambda value: PasswordCredentials(domain="d", user="u", password=value),
    "passcode": lambda value: PasswordCredentials(
        domain="d", user="u", password="p", user_id="i", passcode=value
    ),
}
SHOWN = {
    "repr": repr,
    "str": str,
    "format": "{}".format,
    "percent": lambda thing: "%s %r" % (thing, thing),  # noqa: UP031  logging does it so
    "ascii": ascii,
    "vars": lambda thing: repr(getattr(thing, "__dict__", {})),
    "dir": lambda thing: repr(dir(thing)),
    "nested": lambda thing: repr({"credentials": [thing]}),
    "error": lambda thing: repr(ValueError(thing)),
    "json": lambda thing: json.dumps({"credentials": thing}, default=str),
}


def test_every_secret_of_every_kind_is_tried():
    """No field of credentials holds a secret that the tests below leave out."""
    assert secret_fields() == {"value", *SECRETIVE}  # a token's value besides


@pytest.mark.parametrize("show", SHOWN.values(), ids=SHOWN)
@pytest.mark.parametrize("kind", [Token, Secret, *SECRETIVE.values()], ids=["t", "s", *SECRETIVE])
def test_no_way_to_print_shows_the_value(kind, show):
    """Repr, str, every format, vars and a log line show stars."""
    assert "canary" not in show(kind(VALUE))


def test_stars_stand_for_the_value():
    """That there is a secret may be seen."""
    assert "Secret(***)" == repr(Secret(VALUE)) == str(Secret(VALUE))
    assert "Token(value=Secret(***))" == repr(Token(VALUE))


def test_attrs_functions_do_not_show_the_value():
    """Asdict and astuple, with every serializer, give the Secret and not its text."""
    token = Token(VALUE)

    assert {"value": Secret(VALUE)} == attrs.asdict(token)
    assert "canary" not in repr((attrs.asdict(token), attrs.astuple(token)))
    assert "canary" not in json.dumps(attrs.asdict(token), default=repr)


def test_log_line_does_not_show_the_value(caplog):
    """A token that somebody logs is stars."""
    logging.getLogger("somebody").error("%s %r", Token(VALUE), Secret(VALUE))

    assert "canary" not in caplog.text


@pytest.mark.parametrize("kind", [Token, Secret, *SECRETIVE.values()])
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_value_is_not_pickled(kind, protocol):
    """Pickling credentials is refused by every protocol, with what to do instead."""
    with pytest.raises(TypeError, match="make the credentials where they are used"):
        pickle.dumps(kind(VALUE), protocol)


@pytest.mark.parametrize("kind", [Token, Secret, *SECRETIVE.values()])
def test_value_is_not_copied_deeply(kind):
    """A deep copy, as tools make of what they store, is refused."""
    with pytest.raises(TypeError, match="not pickled or copied"):
        copy.deepcopy(kind(VALUE))


def test_session_does_not_show_the_value():
    """A session and the parts it holds are printed without the token."""
    ief = IefSession(PROJECT, credentials=Token(VALUE), endpoint="http://127.0.0.1:9")

    assert "canary" not in repr([ief, vars(ief), ief._transport])
    with pytest.raises(TypeError):
        pickle.dumps(ief)


def test_session_given_a_bare_token_refuses_it_unshown():
    """A token that is not wrapped is refused; neither text nor frame of ours shows it."""
    with pytest.raises(ConfigurationError, match="credentials must be a Token") as caught:
        IefSession(PROJECT, credentials=VALUE, endpoint="http://127.0.0.1:9")

    assert not [local for local in locals_of(caught.value) if "canary" in local]


def test_token_is_a_value():
    """Equal tokens are equal, hash alike, and can't be changed."""
    assert Token(VALUE) == Token(VALUE)
    assert hash(Token(VALUE)) == hash(Token(VALUE))
    assert Token(VALUE) != Token("another")
    assert Secret(VALUE) == Secret(VALUE)
    assert Secret(VALUE) != VALUE
    assert Secret("another") != Secret(VALUE)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Token(VALUE).value = "another"


def test_secret_has_no_other_attributes():
    """There is no place on a Secret where a tool could find it by accident."""
    assert not hasattr(Secret(VALUE), "__dict__")
    assert not hasattr(Token(VALUE), "__dict__")


@pytest.mark.parametrize(
    ("text", "scrubbed"),
    [
        ("", ""),
        ("nothing", "nothing"),
        (VALUE, "***"),
        (f"a {VALUE} b {VALUE}{VALUE}", "a *** b ******"),
        (f'{{"token": "{VALUE}"}}', '{"token": "***"}'),
    ],
)
def test_scrub_takes_the_value_out_of_a_text(text, scrubbed):
    """Every occurrence of the value becomes stars, and nothing else changes."""
    assert scrubbed == Token(VALUE).scrub(text) == Secret(VALUE).scrub(text)


# ---- access keys and passwords -------------------------------------------------------------------

SAMPLES = Path(__file__).parents[1] / "samples"
SIGNING = json.loads((SAMPLES / "signing_vectors.json").read_text())
PARTS = ("access_key", "secret_key", "security_token")


def signed(vector):
    """Return what the client's signer makes of a vector of the vendor's."""
    given = dict(vector["input"]["headers"])
    date = given.pop("X-Sdk-Date")
    token = given.pop("X-Security-Token", None)
    query = "&".join(
        f"{quote(name, safe='~')}={quote(str(value), safe='~')}"
        for name, value in vector["input"]["query"]
    )
    request = Request(
        method=vector["input"]["method"],
        url=f"https://{vector['input']['host']}{vector['input']['path']}?{query}",
        headers=given,
        body=vector["input"]["body"].encode(),
    )
    moment = datetime.strptime(f"{date}+0000", "%Y%m%dT%H%M%SZ%z")
    return AccessKey(vector["ak"], vector["sk"], token).headers(request, now=moment.timestamp())


@pytest.mark.parametrize("vector", SIGNING["vectors"], ids=lambda vector: vector["name"])
def test_signer_makes_the_vendors_signatures(vector):
    """Each vector of the vendor's signer: the same Authorization, to the letter."""
    headers = signed(vector)

    assert vector["authorization"] == headers["Authorization"]
    assert vector["input"]["headers"]["X-Sdk-Date"] == headers["X-Sdk-Date"]
    assert vector["input"]["host"] == headers["Host"]
    assert vector["input"]["headers"].get("X-Security-Token") == headers.get("X-Security-Token")


def test_there_are_thirteen_vectors():
    """None of the vectors got lost."""
    assert 13 == len(SIGNING["vectors"])


TEXTS = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"), include_characters="%+&=/ ~*"),
    max_size=12,
)
NAMES = st.text("abcdefgxyz-_", min_size=1, max_size=9).filter(lambda name: name.strip("-_"))
PRINTABLE = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12)


@settings(max_examples=examples(300))
@given(
    line=st.tuples(st.sampled_from(["GET", "POST", "PUT"]), st.lists(TEXTS, max_size=5)),
    query=st.lists(st.tuples(TEXTS.filter(bool), TEXTS), max_size=6),
    sent=st.tuples(st.dictionaries(NAMES, PRINTABLE, max_size=4), st.binary(max_size=20)),
    token=st.none() | st.text("abc+/=", min_size=1, max_size=20),
    now=st.integers(0, 4_000_000_000),
)
def test_both_signers_agree(line, query, sent, token, now):
    """Whatever is signed, the client's signature is the one that the fake's own signer makes."""
    (method, path), (headers, body) = line, sent
    place = "/" + "/".join(quote(part, safe="~") for part in path)
    text = "&".join(f"{quote(name, safe='~')}={quote(value, safe='~')}" for name, value in query)
    url = f"https://ief.example.com:8443{place}" + (f"?{text}" if text else "")
    request = Request(method=method, url=url, headers=headers, body=body)
    ours = AccessKey("an-access-key", "a-secret-key", token).headers(request, now=now)
    known = {**headers, **({"X-Security-Token": token} if token else {})}
    theirs = sign(
        "an-access-key",
        "a-secret-key",
        method=method,
        host="ief.example.com:8443",
        path=place,
        query=query,
        headers=known,
        body=body,
        now=now,
    )

    assert theirs == ours["Authorization"]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("name", [name for name in REFUSED if name not in {"none", "token"}])
def test_part_of_a_key_that_no_header_can_carry_is_refused_unshown(part, name):
    """A part that is no line of printable ASCII is refused by name, and shown nowhere."""
    with pytest.raises(ConfigurationError, match=rf"^AccessKey\({part}=\) must ") as caught:
        AccessKey(**{"access_key": "a", "secret_key": "s", part: REFUSED[name]})

    assert not [shown for shown in locals_of(caught.value) if "canary" in shown]
    assert "canary" not in repr(vars(caught.value))


def test_wrapped_part_is_checked_as_well():
    """A Secret with a line end is refused like the text in it."""
    with pytest.raises(ConfigurationError, match="line ends"):
        AccessKey("a", Secret(f"{VALUE}\n"))


@pytest.mark.parametrize("part", SECRETIVE)
def test_attrs_functions_show_no_secret_of_any_kind(part):
    """Asdict and astuple of keys and passwords hold Secrets, and their texts print stars."""
    credentials = SECRETIVE[part](VALUE)

    assert "canary" not in repr((attrs.asdict(credentials), attrs.astuple(credentials)))
    assert "canary" not in json.dumps(attrs.asdict(credentials), default=repr)
    assert Secret(VALUE) in attrs.astuple(credentials)


def test_scrub_of_a_key_takes_all_of_it():
    """No part of a key and no signature stays in what a server sends back."""
    key = AccessKey("canary-access-key", "canary-secret-key", "canary-security-token")
    echo = (
        "canary-access-key canary-secret-key|x-security-token:canary-security-token|"
        "SDK-HMAC-SHA256 Access=canary-access-key, SignedHeaders=host, Signature=0123abcdEF"
    )

    assert (
        "*** ***|x-security-token:***|SDK-HMAC-SHA256 Access=***, SignedHeaders=host, Signature=***"
    ) == key.scrub(echo)


def test_requests_and_replies_do_not_show_their_contents():
    """Headers and bodies, where tokens and passwords are, are in no repr."""
    assert VALUE not in repr(Request(url="https://x/", headers={"a": VALUE}, body=VALUE.encode()))
    assert VALUE not in repr(Reply(status=201, headers={"a": VALUE}, body=VALUE.encode()))


@pytest.mark.parametrize(
    ("date", "seconds"),
    [
        ("Thu, 29 Feb 2024 23:59:59 GMT", 60.0),
        ("Thursday, 29-Feb-24 23:59:59 GMT", 60.0),
        ("Thu Feb 29 23:59:59 2024", 60.0),
        ("Thu, 29 Feb 2024 23:59:59 -0000", 60.0),
        ("Thu, 29 Feb 2024 23:59:59", 60.0),
        (None, 0.0),
        ("", 0.0),
        ("yesterday", 0.0),
        ("Thu, 99 Feb 2024 23:59:59 GMT", 0.0),
    ],
)
@pytest.mark.parametrize("zone", ["UTC", "CST-8", "EST5"], indirect=True)
@pytest.mark.usefixtures("zone")
def test_skew_is_told_by_the_servers_date(date, seconds):
    """A clock is ahead by what it differs from the server's Date, wherever it stands."""
    now = datetime(2024, 3, 1, 0, 0, 59, tzinfo=UTC).timestamp()

    assert seconds == clock_skew(date, now=now)
