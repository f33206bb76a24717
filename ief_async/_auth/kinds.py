"""What the package asks of credentials of any kind, so that nothing else tells kinds apart.

A new kind is

* a `Key` in ``keys``, which makes headers, or a class in ``sources`` with `obtain` and `scrub`,
  which gets a key; either derives from `CredentialKind` and has an example in its docstring;
* its name in ``_auth/__init__`` and in both lists of names of the package's ``__init__``;
* in the tests how it is made for a fake, in ``CREDENTIALS`` of ``conftest``; its answers and advice
  in ``auth/test_kinds``; each of its secrets in ``SECRETIVE`` of ``auth/test_keys`` and in
  ``SECRETS`` of ``test_errors``; and what it asks for in the fake, if that does not know it.

What is forgotten, a test says.
"""

from collections.abc import Hashable
from typing import ClassVar


class CredentialKind:
    """A kind of credentials; a new one overrides the answers that are different for it.

    Attributes:
        locks_on_refusal: whether the service locks what it refused a few times in a row. Such a key
            is tried by one request alone, until the service accepted it.
        refusal_words: what the service says, in lower case, when it refuses such a key itself, and
            not what the key was used for. A message that contains one of them stops all who share
            the key. Without them only several refusals in a row do.
        for_one_project: whether the keys that a source obtains are for one project only.
    """

    __slots__ = ()

    locks_on_refusal: ClassVar[bool] = False
    refusal_words: ClassVar[tuple[str, ...]] = ()
    for_one_project: ClassVar[bool] = False

    def advice(self, *, skew: float = 0.0, renewed: bool = False) -> str:  # noqa: ARG002  kinds that sign need the one, keys the other
        """Say what to do when the service refuses it.

        Args:
            skew: seconds that this machine's clock is ahead of the server's.
            renewed: whether a source gave it, and gives another one.
        """
        return "Check the source of the credentials."

    def refuses_key(self, message: str) -> bool:
        """Tell whether the service's message refuses the key, and not what it was used for."""
        said = message.lower()
        return any(word in said for word in self.refusal_words)

    def identity(self) -> Hashable | None:
        """Return a hashable value: credentials with equal values share one circuit.

        A refusal of one stops all of them. None: never shared. The value may hold a `Secret`, and
        is never shown.
        """
        return None

    def account(self) -> tuple[str | None, ...] | None:
        """Return a stable, non-secret name of the account, or None if there is none.

        Checkpoints tell targets apart by it.
        """
        return None

    def login(self) -> str | None:
        """Return the name by which a fleet tells apart targets that are named alike, or None."""
        return None
