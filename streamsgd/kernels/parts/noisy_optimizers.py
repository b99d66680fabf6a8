"""Optimizers that bring noise of their own: what people name, and what kernels take, which knows the key of the noise.

By itself each is plain gradient descent; `stirred(key)` returns what `kernels.learn.stirring` adds noise for.
"""

from typing import Any, NamedTuple

from streamsgd.kernels.parts.ranges import AtLeastOne, NotNegative, Positive


class Perturbed(NamedTuple):
    """w <- w - eta g, and a kick of length `radius` in a random direction where |g| <= threshold, in every so many steps."""

    learning_rate: Positive = 0.01
    radius: NotNegative = 0.1
    threshold: NotNegative = 0.001
    every: AtLeastOne = 50

    n_slots = 0
    rate_scaling = "linear"
    source = "Jin, Ge, Netrapalli, Kakade and Jordan 2017, ICML; kicks are uniform on the sphere"

    def stirred(self, key: int) -> Any:
        """Return what kernels take.

        Raises
        ------
        ValueError
            A field is out of range.

        """
        if not (self.radius > 0.0 and self.threshold >= 0.0 and self.every >= 1):
            raise ValueError("radius must be above 0, threshold at least 0, every at least 1")
        form: Any = PerturbedSteps
        return form(*self, key)

    def prepare(optimizer, step):
        return 0.0, 0.0

    def move(optimizer, w, g, slots, j, eta, shared):
        return w - eta * g, eta

    def stretch(optimizer, slots, j, shared):
        return 1.0


class Heated(NamedTuple):
    """w <- w - eta g + sqrt(2 eta T) z, z normal; T is halved every `half_life` steps, and stays as it is if that is 0."""

    learning_rate: Positive = 0.01
    temperature: NotNegative = 0.0001
    half_life: NotNegative = 0.0

    n_slots = 0
    rate_scaling = "none"
    source = "Welling and Teh 2011, ICML; with a falling temperature Gelfand and Mitter 1991, SIAM J. Control 29"

    def stirred(self, key: int) -> Any:
        """Return what kernels take.

        Raises
        ------
        ValueError
            A field is out of range.

        """
        if not (self.temperature >= 0.0 and self.half_life >= 0.0):
            raise ValueError("temperature and half_life must be at least 0")
        form: Any = HeatedSteps
        return form(*self, key)

    def prepare(optimizer, step):
        return 0.0, 0.0

    def move(optimizer, w, g, slots, j, eta, shared):
        return w - eta * g, eta

    def stretch(optimizer, slots, j, shared):
        return 1.0


class PerturbedSteps(NamedTuple):
    """`Perturbed` with the key of its noise."""

    learning_rate: float
    radius: float
    threshold: float
    every: int
    key: int

    n_slots = 0
    rate_scaling = "linear"
    stirs = "kick"

    @property
    def named(self) -> Any:
        """What people call it."""
        cls: Any = Perturbed
        return cls(*self[:-1])

    def prepare(optimizer, step):
        return 0.0, 0.0

    def move(optimizer, w, g, slots, j, eta, shared):
        return w - eta * g, eta

    def stretch(optimizer, slots, j, shared):
        return 1.0


class HeatedSteps(NamedTuple):
    """`Heated` with the key of its noise."""

    learning_rate: float
    temperature: float
    half_life: float
    key: int

    n_slots = 0
    rate_scaling = "none"
    stirs = "heat"

    @property
    def named(self) -> Any:
        """What people call it."""
        cls: Any = Heated
        return cls(*self[:-1])

    def prepare(optimizer, step):
        return 0.0, 0.0

    def move(optimizer, w, g, slots, j, eta, shared):
        return w - eta * g, eta

    def stretch(optimizer, slots, j, shared):
        return 1.0
