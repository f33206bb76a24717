"""Motion: what happens to the pods of a fake fleet between two requests."""

from typing import Literal, Self

import attrs
from attrs.validators import optional

from ief_async.testing._validators import is_at_least, is_one_of, is_share

Place = Literal["anywhere", "head", "tail"]

_is_rate = is_at_least(0)
_is_place = is_one_of(Place)


@attrs.frozen(kw_only=True)
class Motion:
    """What happens to the server's pods before each list request is answered.

    Example:
        from ief_async.testing import FakeIef, Motion

        motion = [Motion.uniform(inserts=2, deletes=2), Motion.bursts(chance=0.01)]
        async with FakeIef(pods=2_000, motion=motion) as fake:
            ...  # read the fleet
            expected = fake.survivors()  # the pods that were there throughout

    Use the class methods to make one. All rates are expected numbers per request: a rate of 2.5
    inserts two pods, and a third one half of the time.

    Attributes:
        inserts: How many single pods come.
        deletes: How many single pods go.
        touches: How many pods jump to the head of the list.
        at: Where single pods come and go.
        chance: The probability that a request meets a burst.
        least: The fewest pods that go in a burst.
        most: The most pods that go in a burst.
        new: If None, the pods that go in a burst are neighbours. Otherwise they are anywhere in
            the list, and as many pods of the same deployments come at this place.
    """

    inserts: float = attrs.field(default=0.0, validator=_is_rate)
    deletes: float = attrs.field(default=0.0, validator=_is_rate)
    touches: float = attrs.field(default=0.0, validator=_is_rate)
    at: Place = attrs.field(default="anywhere", validator=_is_place)
    chance: float = attrs.field(default=0.0, validator=is_share)
    least: int = attrs.field(default=1, validator=is_at_least(1))
    most: int = attrs.field(default=1)
    new: Place | None = attrs.field(default=None, validator=optional(_is_place))

    @most.validator
    def _reaches_least(self, _: object, most: int) -> None:
        if most < self.least:
            msg = f"most must be at least {self.least}, got {most}"
            raise ValueError(msg)

    @classmethod
    def uniform(cls, inserts: float = 0.5, deletes: float = 0.5, *, at: Place = "anywhere") -> Self:
        """Let single pods come and go.

        Args:
            inserts: How many come per request.
            deletes: How many go per request.
            at: Where they come and go.
        """
        return cls(inserts=inserts, deletes=deletes, at=at)

    @classmethod
    def bursts(cls, chance: float = 0.1, least: int = 50, most: int = 300) -> Self:
        """Let many neighbours go at once.

        Args:
            chance: The probability per request.
            least: The fewest pods that go.
            most: The most pods that go.

        Raises:
            ValueError: ``most`` is below ``least``.
        """
        return cls(chance=chance, least=least, most=most)

    @classmethod
    def rolling(
        cls,
        chance: float = 0.1,
        least: int = 50,
        most: int = 300,
        *,
        new: Place = "tail",
        churn: float = 0.5,
    ) -> Self:
        """Replace many pods at once, as a rolling update of deployments does.

        Args:
            chance: The probability per request.
            least: The fewest pods that are replaced.
            most: The most pods that are replaced.
            new: Where the new pods come.
            churn: How many single pods come or go per request besides: half of them come.

        Raises:
            ValueError: ``most`` is below ``least``.
        """
        half = churn / 2
        return cls(chance=chance, least=least, most=most, new=new, inserts=half, deletes=half)

    @classmethod
    def touch(cls, rate: float) -> Self:
        """Let pods jump to the head, as in a list that is sorted by the time of update.

        Args:
            rate: How many jump per request.
        """
        return cls(touches=rate)
