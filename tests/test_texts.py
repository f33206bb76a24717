"""What of a server's words is shown: no run of a secret in any form, and nothing that steers."""

import base64
import html
import json
import re
import sys
import unicodedata
from urllib.parse import quote

import pytest
from conftest import examples
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ief_async import ApiError, IefError, PartialScanError, PayloadError, _texts
from ief_async._texts import RUN, Needle, printable, printable_json

TOKEN = base64.b64encode(bytes(at * at * 7 % 251 for at in range(1, 700))).decode()
ESCAPES = {
    "json": lambda text: json.dumps(text)[1:-1],
    "json-bare": lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    "json-all": lambda text: "".join(
        f"\\u{int.from_bytes(unit, 'big'):04X}"
        for unit in re.findall(b"..", text.encode("utf-16-be"), re.DOTALL)
    ),
    "url": lambda text: quote(text, safe=""),
    "url-all": lambda text: "".join(f"%{byte:02x}" for byte in text.encode()),
    "html": html.escape,
    "html-all": lambda text: "".join(f"&#{ord(one)};" for one in text),
    "html-hex": lambda text: "".join(f"&#x{ord(one):X};" for one in text),
    "python": lambda text: text.encode("unicode_escape").decode(),
    "html-ascii": lambda text: html.escape(text).encode("ascii", "xmlcharrefreplace").decode(),
}
CHANGES = {
    **ESCAPES,
    "itself": str,
    "lower": lambda text: re.sub("[A-Z]", lambda one: one[0].lower(), text),
    "upper": lambda text: re.sub("[a-z]", lambda one: one[0].upper(), text),
    "lines": lambda text: "\r\n ".join(re.findall(".{1,5}", text, re.DOTALL)),
    "base64": lambda text: base64.b64encode(b"a" + text.encode() + b"bc").decode(),
    "base64-url": lambda text: base64.urlsafe_b64encode(b"ab" + text.encode()).decode(),
    "base64-lines": lambda text: base64.encodebytes(text.encode() * 3).decode(),
}
SECRETS = st.one_of(
    st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=RUN, max_size=60),
    st.text(st.sampled_from('ab"\\%&;41x€ß😀<>/+='), min_size=RUN, max_size=40),
    st.just(TOKEN),
)


def unlike(secret):
    """Return words that no secret is part of, to stand around it."""
    return "." if "(" in secret else "("


@settings(max_examples=examples(150))
@given(secret=SECRETS, change=st.sampled_from([*CHANGES]))
@example(secret="111111111111ß%11", change="python")
@example(secret="11111111111€ß%11", change="python")
@example(secret="11111111111&ß%11", change="html-ascii")
@example(secret="ß%11%11%11%11%11", change="python")
@example(secret=r"ß\x11\x11\x11\x11", change="html-ascii")
@example(secret="ß&lt;&lt;&lt;&lt;", change="json")
def test_secret_is_found_in_every_form(secret, change):
    """Escaped, in base64, in other letters or broken over lines, a secret becomes stars."""
    mark = unlike(secret)
    shown = Needle(secret).scrub(f"{mark}{CHANGES[change](secret)}{mark}")

    assert "***" in shown
    # at the ends of base64 stand characters that belong to what is around, too
    assert len(shown) <= len("***") + 2 + (12 if change.startswith("base64") else 0)


@settings(max_examples=examples(150))
@given(
    secret=SECRETS,
    outer=st.sampled_from([*ESCAPES]),
    inner=st.sampled_from([*ESCAPES]),
)
@example(secret="11111111111&ß%11", outer="html-ascii", inner="python")
def test_secret_is_found_escaped_twice(secret, outer, inner):
    """A token in JSON in JSON, or in a URL in HTML, becomes stars."""
    mark = unlike(secret)
    shown = Needle(secret).scrub(f"{mark}{ESCAPES[outer](ESCAPES[inner](secret))}{mark}")

    assert "***" in shown
    assert len(shown) <= len("***") + 2


@settings(max_examples=examples(150))
@given(
    begin=st.integers(0, len(TOKEN) - RUN),
    size=st.integers(RUN, 80),
    change=st.sampled_from([one for one in CHANGES if not one.startswith("base64")]),
    around=st.sampled_from(["", "(", " ", "(token): ", "«", "\n"]),
)
def test_any_run_of_a_secret_is_found(begin, size, change, around):
    """Sixteen characters that follow each other are enough, wherever the secret was cut."""
    piece = TOKEN[begin : begin + size]
    if len(piece) < RUN:
        return
    shown = Needle(TOKEN).scrub(f"{around}{CHANGES[change](piece)}{around}")

    assert f"{around}***{around}" == shown


@given(
    text=st.text(st.characters(codec="utf-8"), max_size=200),
    secret=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=RUN),
)
def test_other_words_stay_as_they_are(text, secret):
    """A text that has nothing of the secret comes back as it was, escapes and blanks included."""
    if "***" not in (shown := Needle(secret).scrub(text)):
        assert text == shown


def test_words_around_a_secret_stay_as_they_are():
    """Only the secret's own place is masked: blanks and escapes elsewhere are left alone."""
    shown = Needle(TOKEN).scrub(f"a  b\\n%41 &lt;{quote(TOKEN)}&gt; c\td {TOKEN[30:60]}!")

    assert "a  b\\n%41 &lt;***&gt; c\td ***!" == shown


@pytest.mark.parametrize(
    ("secret", "text", "shown"),
    [
        ("hunter2", "no hunter2, nor hunter22", "no ***, nor hunter22"),
        ("a&b c", "user=a%26b%20c, a&amp;b c", "user=***, ***"),
        ("pass wörd", 'bad "pass w\\u00f6rd"', 'bad "***"'),
        ("wörd77", r"w\xf6rd77 w\u00f6rd77 w&#246;rd77 w%C3%B6rd77", "*** *** *** ***"),
        ("111111", "the code 111111 of 21111112", "the code *** of 21111112"),
        ("abc", "abc", "abc"),
        ("t", "a token", "a token"),
        ("", "nothing", "nothing"),
    ],
)
def test_short_secrets_are_found_as_a_whole(secret, text, shown):
    """A short password is masked in each escaped form, and left alone inside other words."""
    assert shown == Needle(secret).scrub(text)


class Counted(str):
    """A text that counts the characters that searches in it pass over."""

    __slots__ = ("passed",)

    def __contains__(self, part):
        self.find(part)
        return super().__contains__(part)

    def find(self, part, start=0):
        """Find a part, and count what comes before it."""
        place = super().find(part, start)
        self.passed += (place if place >= 0 else len(self)) - start
        return place


def effort_of(secret, text):
    """Return how many lines run to scrub a text, and characters of the secret are searched."""
    needle, effort = Needle(secret), 0
    hay = needle._hay = Counted(needle._hay)
    hay.passed = 0

    def on_event(_, event, __):
        nonlocal effort
        effort += event == "line"
        return on_event

    def on_call(frame, *_):
        return on_event if frame.f_code.co_filename == _texts.__file__ else None

    tracer = sys.gettrace()  # coverage's, say
    sys.settrace(on_call)
    try:
        needle.scrub(text)
    finally:
        sys.settrace(tracer)
    return effort + hay.passed


@pytest.mark.parametrize(
    "text",
    [
        "x" * 65_536,
        TOKEN * 70,
        " ".join(TOKEN[at : at + 20] for at in range(0, 900, 3)) * 10,
        json.dumps(json.dumps([{"a": "b\n<%>&amp;"}] * 2_000)),
        "%" * 65_536,
        "\\" * 65_536,
        "&" * 65_536,
        " " * 65_536,
        ("ab" * 20 + " ") * 1_600,
    ],
    ids=["letters", "echo", "pieces", "json", "percent", "backslash", "amp", "blanks", "repeated"],
)
@pytest.mark.parametrize("secret", [TOKEN, TOKEN * 60, "ab" * 1_000], ids=["1k", "56k", "repeated"])
def test_effort_grows_with_the_length_alone(secret, text):
    """A text of 64 KiB is scrubbed with at most 16 times the effort that one of 4 KiB takes."""
    assert effort_of(secret, text[:65_536]) <= 16 * effort_of(secret, text[:4_096])


# ---- what steers ---------------------------------------------------------------------------------

STEERS = {
    *(chr(code) for code in range(0x20)),
    *(chr(code) for code in range(0x7F, 0xA0)),
    *map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x61C)),
    *"\u2028\u2029\u200b\u200c\u200d\u2060\ufeff\xad\ud800\udfff\U000e0041",
}


def test_every_code_point_that_steers_is_escaped():
    """Of all code points, those that steer are shown as escapes, and letters as they are."""
    for code in range(sys.maxunicode + 1):
        one = chr(code)
        shown = printable(f"a{one}b")
        if one in STEERS or unicodedata.category(one) in {"Cc", "Zl", "Zp", "Cs"}:
            assert shown.isascii(), hex(code)
            assert shown.startswith("a\\"), hex(code)
        elif unicodedata.category(one)[0] in "LNPS" and one.isprintable():
            hidden = code in {0x115F, 0x1160, 0x3164, 0xFFA0}  # letters that nobody sees
            assert hidden or f"a{one}b" == shown, hex(code)
    assert "a\nb\\x1b" == printable("a\nb\x1b", lines=True)
    assert "中文\u3000é😀" == printable("中文\u3000é😀")


@settings(max_examples=examples(80))
@given(
    value=st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
)
def test_json_is_the_same_without_what_steers(value):
    """Escaped JSON is read as the same value, and holds nothing that steers."""
    text = json.dumps(value, ensure_ascii=False)
    shown = printable_json(text)

    assert value == json.loads(shown)
    assert not STEERS & {*shown}


@pytest.mark.parametrize("one", sorted(STEERS - {""}))
def test_no_error_holds_what_steers(one):
    """Message, code, words, path and snippet of errors show escapes."""
    words = f"a{one}b"
    errors = [
        IefError(words),
        ApiError(words, error_code=words, error_msg=words),
        PayloadError(words, path=words, snippet=words),
        PartialScanError(words, [_failure(words)]),
    ]
    for error in errors:
        texts = [str(error), repr(error), *map(str, vars(error).values())]
        assert not [text for text in texts if one in text]


def _failure(words):
    from ief_async import TargetFailure

    return TargetFailure("target", IefError(words))
