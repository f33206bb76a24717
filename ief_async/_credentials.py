"""How a request shows who sends it. Pure: no clock, no loop, no socket.

A secret lives in one `Secret` and is revealed in one place: where the headers are made.
"""

from typing import NoReturn

import attrs

from ief_async._errors import ConfigurationError

SECRET_CHARACTERS = 8


class Secret:
    """A text that no ``repr``, ``str``, format, pickle, ``asdict`` or ``vars`` shows."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text; call it only where a header is made."""
        return self._text

    def scrub(self, text: str) -> str:
        """Return `text` without the secret: servers echo what they were sent.

        A text of a few letters is no secret, and is left alone where it stands in other words.
        """
        return text.replace(self._text, "***") if len(self._text) >= SECRET_CHARACTERS else text

    def __repr__(self) -> str:
        return "Secret(***)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> NoReturn:
        message = "a Secret is not pickled or copied; make the credentials where they are used"
        raise TypeError(message)


def _problem(value: object) -> str | None:
    """Say what keeps a value from being a token, without showing it."""
    if isinstance(value, Secret):
        return None
    if not isinstance(value, str):
        return f"Token takes a text, but was given {type(value).__name__}"
    if not value:
        return "Token takes a text, but was given an empty one: is a variable not set?"
    if not all("!" <= character <= "~" for character in value):
        return (
            "Token takes printable ASCII without blanks or line ends, but was given other "
            "characters, too; a token read from a file often ends in a newline: strip it"
        )
    return None


@attrs.frozen(init=False)
class Token:
    """An IAM token that was got elsewhere; sent as ``X-Auth-Token``.

    It is never renewed: when the server refuses it, `AuthenticationError` is raised at once.

    Raises:
        ConfigurationError: it is no single line of printable ASCII.
    """

    value: Secret

    def __init__(self, value: str | Secret) -> None:
        problem = _problem(value)
        if problem is not None:
            del value, self  # no traceback is to show the one, nor can it show the other
            raise ConfigurationError(problem)
        self.__attrs_init__(value if isinstance(value, Secret) else Secret(value))

    def headers(self) -> dict[str, str]:
        """Return the headers that authenticate a request."""
        return {"X-Auth-Token": self.value.reveal()}

    def scrub(self, text: str) -> str:
        """Return `text` without the token in it."""
        return self.value.scrub(text)
