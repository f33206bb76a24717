"""How a request shows who sends it. Pure: no clock, no loop, no socket.

A secret lives in one `Secret` and is revealed in one place: where the headers are made.
"""

from typing import NoReturn

import attrs

from ief_async._errors import ConfigurationError


class Secret:
    """A text that no ``repr``, ``str``, format, pickle, ``asdict`` or ``vars`` shows."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text; call it only where a header is made."""
        return self._text

    def scrub(self, text: str) -> str:
        """Return `text` without the secret: servers echo what they were sent."""
        return text.replace(self._text, "***")

    def __repr__(self) -> str:
        return "Secret(***)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> NoReturn:
        message = "a Secret is not pickled or copied; make the credentials where they are used"
        raise TypeError(message)


def _secret(value: object) -> Secret:
    """Take one line of header-safe characters, or say what is wrong without showing it."""
    if isinstance(value, Secret):
        return value
    if not isinstance(value, str):
        message = f"Token takes a str, but was given {type(value).__name__}"
        raise ConfigurationError(message)
    if not value or not all("!" <= character <= "~" for character in value):
        message = (
            f"Token takes printable ASCII without blanks or line ends, but was given {len(value)} "
            "characters that are not; a token read from a file often ends in a newline: strip it"
        )
        raise ConfigurationError(message)
    return Secret(value)


@attrs.frozen
class Token:
    """An IAM token that was got elsewhere; sent as ``X-Auth-Token``.

    It is never renewed: when the server refuses it, `AuthenticationError` is raised at once.
    """

    value: Secret = attrs.field(converter=_secret)

    def headers(self) -> dict[str, str]:
        """Return the headers that authenticate a request."""
        return {"X-Auth-Token": self.value.reveal()}

    def scrub(self, text: str) -> str:
        """Return `text` without the token in it."""
        return self.value.scrub(text)
