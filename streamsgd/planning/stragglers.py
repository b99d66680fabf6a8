"""What is done about lanes that are late."""

from __future__ import annotations

from dataclasses import dataclass

from streamsgd.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Straggler:
    """A policy.

    Attributes
    ----------
    again
        Whether a lane that takes `times` the median is done once more elsewhere: the same bits, whoever is first.
    drop
        Lanes of a round that nobody waits for.
    deadline
        Seconds after which a round ends with the lanes that are done, at least one.

    """

    again: bool = False
    times: float = 3.0
    drop: int = 0
    deadline: float | None = None

    def is_enough(self, done: int, running: int, seconds: float, waiting: int = 0) -> bool:
        """Say whether a round ends after so many seconds without the lanes that are running, or wait for a worker."""
        if not running + waiting or not done:
            return False
        over = self.deadline is not None and seconds >= self.deadline
        return over or (not waiting and running <= self.drop)


def parse_straggler(text: str) -> Straggler:
    """Return the policy of `wait`, `again`, `again:TIMES`, `drop:LANES` or `deadline:SECONDS`.

    Raises
    ------
    SettingsError
        It is none of these.

    """
    name, _, value = text.partition(":")
    try:
        if text == "wait":
            return Straggler()
        if name == "again":
            times = float(value) if value else 3.0
            if times >= 1.0:
                return Straggler(again=True, times=times)
        if name == "drop" and int(value) > 0:
            return Straggler(drop=int(value))
        if name == "deadline" and float(value) > 0.0:
            return Straggler(deadline=float(value))
    except ValueError:
        pass
    raise SettingsError(f"{text!r} is none of wait, again, again:TIMES (at least 1), drop:LANES, deadline:SECONDS")
