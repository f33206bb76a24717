"""Kinds of credentials answer for themselves: nothing else tells them apart."""

import ast
from pathlib import Path

import pytest
from conftest import CREDENTIALS, public_kinds

import ief_async
from ief_async import AccessKey, AuthenticationError, EcsMetadata, PasswordCredentials, Token
from ief_async._auth import kind_of
from ief_async._auth.kinds import CredentialKind

KEY = AccessKey("id", "secret-key")
TEMPORARY = AccessKey("id", "secret-key", "security-token")
LOGIN = PasswordCredentials(domain="d", user="u", password="secret", project="p")
KINDS = {kind.__name__ for kind in public_kinds()}
OWN = {"OwnSource", "function"}  # a caller's
PRIVATE = {"Key", "OwnSource", "_LastResort"}  # what all keys have in common, and stand-ins


class OwnSource:
    """A source of the caller's own, which knows nothing of kinds."""

    def obtain(self, scope):
        """Ask for nothing."""

    def scrub(self, text):
        """Leave nothing out."""
        return text


async def own_function():
    """Return nothing."""


# credentials: locked on refusal, for one project, an identity, account, login
ANSWERS = [
    (Token("token"), False, False, False, None, None),
    (KEY, True, False, True, ("id",), None),
    (TEMPORARY, True, False, True, None, None),
    (LOGIN, False, True, True, ("d", "u", None, "p"), "d/u/p"),
    (EcsMetadata(), False, False, False, None, None),
    (OwnSource(), False, True, False, None, None),
    (own_function, False, False, False, None, None),
]
IDS = ("token", "key", "temporary key", "password", "metadata", "own source", "own function")


@pytest.mark.parametrize(
    ("credentials", "locks", "one_project", "identity", "account", "login"), ANSWERS, ids=IDS
)
def test_kind_answers_for_itself(*, credentials, locks, one_project, identity, account, login):
    """What is locked, shared, and told of an account is asked of the kind, whatever it is."""
    kind = kind_of(credentials)

    assert (locks, one_project) == (kind.locks_on_refusal, kind.for_one_project)
    assert (identity, account, login) == (
        kind.identity() is not None,
        kind.account(),
        kind.login(),
    )
    assert "secret" not in repr((kind.identity(), kind.account(), kind.login()))


ADVICE = [
    (Token("token"), {}, AuthenticationError.advice),
    (Token("token"), {"skew": 9_000}, AuthenticationError.advice),
    (Token("token"), {"renewed": True}, "Check the user's rights in this project, and that"),
    (KEY, {}, "Check the access key, its secret key, its security token and the project."),
    (KEY, {"skew": 900}, "Check the access key"),
    (KEY, {"skew": -900}, "Check the access key"),
    (
        KEY,
        {"skew": 901},
        "This machine's clock is 901 s ahead of the server's, which allows 900",
    ),
    (KEY, {"skew": -901, "renewed": True}, "This machine's clock is 901 s behind the server's"),
    (LOGIN, {}, "Check domain, user, password, project or region, and iam_endpoint."),
    (EcsMetadata(), {}, "Check that this is an elastic cloud server"),
    (OwnSource(), {}, "Check the source of the credentials."),
    (own_function, {}, "Check the source of the credentials."),
]


@pytest.mark.parametrize(("credentials", "asked", "advice"), ADVICE)
def test_kind_says_what_to_do_when_it_is_refused(credentials, asked, advice):
    """The advice is that of the kind, and of what is known beside it."""
    assert kind_of(credentials).advice(**asked).startswith(advice)


def test_nothing_else_asks_which_kind_it_is():
    """No file of the package asks for an instance of a particular kind of credentials."""
    asked = []
    for path in Path(ief_async.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance":
                names = {name.id for name in ast.walk(node.args[1]) if isinstance(name, ast.Name)}
                asked += [f"{path}:{node.lineno}"] if names & KINDS else []

    assert not asked
    known = subclasses_of(CredentialKind)
    own = {kind.__name__ for kind in known if kind.__module__.startswith("ief_async.")}
    assert own == KINDS | PRIVATE


def test_every_kind_is_in_the_tables_of_the_tests():
    """A new kind of credentials is tried wherever all of them are."""
    assert KINDS == {type(one).__name__ for one, *_ in ANSWERS} - OWN
    assert KINDS == {type(one).__name__ for one, *_ in ADVICE} - OWN
    assert KINDS == CREDENTIALS.keys()


def test_kind_that_is_locked_says_which_refusals_are_about_the_key():
    """Else twelve projects would send a wrong key more than once."""
    locked = [kind for kind in public_kinds() if kind.locks_on_refusal]

    assert locked
    assert [] == [kind for kind in locked if not kind.refusal_words]


def subclasses_of(kind):
    """Return all that are derived from a class."""
    children = kind.__subclasses__()
    return [*children, *(one for child in children for one in subclasses_of(child))]
