"""The purse: what a corpus may cost in all, kept between items.

Before a call its worst case (every prompt token at the full price, the whole token limit written) is set aside; when it is
answered, what it really cost takes that place. So the sum never passes the budget, however many calls are in flight. A call
that does not fit waits while others might give back what they did not use, and is not made when none is left in flight.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio


class BudgetSpent(Exception):
    """The next call does not fit into the budget any more."""


class Purse:
    """Keeps a budget.

    Args:
        budget: Dollars in all; None sets no limit.
        spent: Dollars that earlier runs have spent.
    """

    def __init__(self, budget: float | None, spent: float = 0.0) -> None:
        self.budget = budget
        self.spent = spent
        self._reserved = 0.0
        self._in_flight = 0
        self._changed = anyio.Condition()

    @asynccontextmanager
    async def setting_aside(self, most: float) -> AsyncIterator["Payment"]:
        """Holds `most` dollars for one call; the block says what was paid.

        Raises:
            BudgetSpent: the call does not fit, and no call in flight can give anything back.
        """
        async with self._changed:
            while self.budget is not None and self.spent + self._reserved + most > self.budget:
                if self._in_flight == 0:
                    raise BudgetSpent
                await self._changed.wait()
            self._reserved += most
            self._in_flight += 1
        payment = Payment()
        try:
            yield payment
        finally:
            # Shielded: a cancelled run must still give back what it held, or the others wait for ever.
            with anyio.CancelScope(shield=True):
                async with self._changed:
                    self._reserved -= most
                    self._in_flight -= 1
                    self.spent += payment.dollars
                    self._changed.notify_all()


class Payment:
    """What a call cost, in dollars; stays 0 where nothing was answered."""

    def __init__(self) -> None:
        self.dollars = 0.0
