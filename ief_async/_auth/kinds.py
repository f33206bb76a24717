"""What the package asks of credentials of any kind, so that nothing else tells kinds apart."""

from collections.abc import Hashable
from typing import ClassVar


class CredentialKind:
    """A kind of credentials; a new one overrides the answers that are different for it.

    Attributes:
        locks_on_refusal: whether the service locks what it refused a few times in a row. Such a key
            is tried by one request alone, until the service accepted it.
        for_one_project: whether what is got with it is for one project only.
    """

    __slots__ = ()

    locks_on_refusal: ClassVar[bool] = False
    for_one_project: ClassVar[bool] = False

    def advice(self, *, skew: float = 0.0, renewed: bool = False) -> str:  # noqa: ARG002  for those that sign, or are got
        """Say what to do when the service refuses it.

        Args:
            skew: seconds that this machine's clock is ahead of the server's.
            renewed: whether a source gave it, and gives another one.
        """
        return "Check the source of the credentials."

    def identity(self) -> Hashable | None:
        """Return what is the same for equal credentials, or None if nobody knows what is equal.

        It may hold a `Secret`, and is compared and hashed, never shown.
        """
        return None

    def account(self) -> tuple[str | None, ...] | None:
        """Return what tells an account, is not secret, and lasts; None if nothing does."""
        return None

    def login(self) -> str | None:
        """Return what people call the account, or None."""
        return None
