"""Rare events: whether rows are thinned by their class, and how; decided before anything is learned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from streamsgd.errors import SettingsError
from streamsgd.features.choose_target import class_counts
from streamsgd.kernels.parts.losses import Logistic
from streamsgd.kernels.parts.thinned import Everything, LocalCaseControl, Targeted, Uniform
from streamsgd.kernels.parts.traits import judges, reduces
from streamsgd.kernels.sums.offset import offset_loss
from streamsgd.kernels.sums.thin import LOCAL, TARGETED, UNIFORM, Rule
from streamsgd.messages import counted, verb
from streamsgd.planning.samplers import replaces
from streamsgd.settings.registry import make, spec_of

if TYPE_CHECKING:
    from streamsgd.features.sample import Sample
    from streamsgd.features.target import Target
    from streamsgd.kernels.structs.block import Parts
    from streamsgd.settings.fields import Settings

LEAST_POSITIVES = 1000
"""Of fewer nobody learns a pilot, and all rows are no burden."""

PILOT_POSITIVES = 500
"""Positives after which a pilot is good enough, ..."""

PILOT_SHARE = 0.1
"""... or this share of the data, ..."""

FEWEST_POSITIVES = 100
"""... but never after fewer than these."""

RARE_SHARE = 0.02
"""Share of positives below which `auto` thins, ..."""

LARGE = 2_000_000
"""... of at least so many rows."""

KINDS = {Targeted: TARGETED, Uniform: UNIFORM, LocalCaseControl: LOCAL}


class Thinner(NamedTuple):
    """How a run thins its rows."""

    spec: str
    """As of `settings.registry`."""
    negatives: float
    """Rows of class 0 in the data, ..."""
    positives: float
    """... and of class 1."""

    @property
    def part(self) -> Any:
        """The part that the spec names."""
        return make("rare", self.spec)

    @property
    def rule(self) -> Rule:
        """The rule, but for the mean length of rows, which a pilot finds."""
        part = self.part
        c = part.c * self.positives / max(self.negatives, 1.0) if isinstance(part, Uniform) else part.c
        return Rule(KINDS[type(part)], float(c), 1.0, str(getattr(part, "weights", "")) == "ipw", self.share)

    @property
    def share(self) -> float:
        """Of positives."""
        return self.positives / max(self.positives + self.negatives, 1.0)

    @property
    def weighs(self) -> bool:
        """Whether rows that are kept have other weights than before."""
        rule = self.rule
        return rule.weighs or rule.kind == LOCAL

    @property
    def pilot_rows(self) -> int:
        """About how many rows the pilot learns."""
        rows, share = self.positives + self.negatives, max(self.share, 1e-300)
        return round(min(PILOT_POSITIVES / share, max(PILOT_SHARE * rows, FEWEST_POSITIVES / share)))

    @property
    def expected_rows(self) -> int:
        """About how many rows of a pass are kept, as if the pilot's were thinned too."""
        part = self.part
        drawn = 2.0 * part.c * self.positives if isinstance(part, LocalCaseControl) else (1.0 + part.c) * self.positives
        return round(min(drawn, self.positives + self.negatives))

    @property
    def line(self) -> str:
        """What it will do, in words."""
        rows, pilot = round(self.positives + self.negatives), self.pilot_rows
        share = self.expected_rows / max(rows, 1)
        about = "up to" if isinstance(self.part, LocalCaseControl) else "about"  # a pilot that is right is rarely wrong
        return (
            f"rare: {self.positives:,.0f} of {rows:,} rows are positive; a pilot learns about {pilot:,}, and of those after it "
            f"{about} {share * (rows - pilot):,.0f} will be learned ({share:.1%}), by {self.spec}"
        )

    def header(self) -> dict[str, Any]:
        """Return it as JSON."""
        return self._asdict()


def plain_loss(loss: Any) -> Any:
    """Return the loss by which a model predicts and is judged: without offsets."""
    return make("loss", "logistic") if getattr(loss, "offset", False) else loss


def thins(parts: Parts) -> bool:
    """Whether rows are thinned."""
    return bool(getattr(parts.loss, "offset", False))


def choose_thinner(settings: Settings, look: Sample, target: Target, parts: Parts) -> Thinner | None:
    """Return how rows are thinned, or None where all are learned; class counts need a pass over the target column.

    Raises
    ------
    SettingsError
        They cannot be.

    """
    asked = "targeted" if settings.rare == "auto" else settings.rare
    part = make("rare", asked)
    if isinstance(part, Everything):
        return None
    problem = _problem(settings, target, parts, part)
    if problem and settings.rare == "auto":
        return None
    if problem:
        raise SettingsError(f"--rare {settings.rare}: {problem}")
    if settings.rare == "auto" and look.dataset.n_rows < LARGE:
        return None  # nothing is counted, which takes a pass
    negatives, positives = class_counts(look, target).tolist()
    if settings.rare == "auto":
        few = positives < RARE_SHARE * (positives + negatives) and positives >= LEAST_POSITIVES
        return Thinner(spec_of("rare", part), negatives, positives) if few and positives + negatives >= LARGE else None
    if positives < LEAST_POSITIVES:
        raise SettingsError(
            f"--rare {settings.rare}: {counted(int(positives), 'row')} {verb(positives)} {target.classes[1]!r}, too few for a "
            f"pilot, which wants {LEAST_POSITIVES:,}; a table so small is learned whole: leave --rare out"
        )
    return Thinner(spec_of("rare", part), negatives, positives)


def with_offsets(parts: Parts) -> Parts:
    """Return the parts by which thinned rows are learned."""
    return parts._replace(loss=offset_loss())


def _problem(settings: Settings, target: Target, parts: Parts, part: Any) -> str:
    """Return why rows cannot be thinned by such a rule; nothing if they can."""
    weights = str(getattr(part, "weights", "offset"))
    return next((said for wrong, said in _problems(settings, target, parts, weights) if wrong), "")


def _problems(settings: Settings, target: Target, parts: Parts, weights: str) -> list[tuple[bool, str]]:
    classes = ", ".join(map(repr, target.classes[:5]))
    return [
        (weights not in ("offset", "ipw"), f"weights={weights} is neither offset nor ipw"),
        (
            target.task != "binary",
            f"thins rows of two classes, and {target.name!r} {'has ' + classes if classes else 'is a number'}; leave it out"
            + (", or make a target of one class against the others" if classes else ""),
        ),
        (
            not isinstance(parts.loss, Logistic),
            "odds are what makes up for rows that are left out, and this loss has none: take --loss logistic",
        ),
        (settings.recalibrate != "none", "its probabilities are of the data already: leave --recalibrate out"),
        (bool(settings.class_weight), "classes are drawn already: leave --class-weight out"),
        (
            bool(parts.penalty._fields),
            "a penalty weighs against rows, of which most are left out: leave --penalty out, or --rare",
        ),
        (reduces(parts.optimizer), "svrg corrects by the gradient of all rows: take another --optimizer"),
        (judges(parts.optimizer), f"--optimizer {settings.optimizer} judges steps by all rows: take another one, such as adam"),
        (settings.noise, "--noise is that of all rows: leave it out"),
        (settings.combine == "sync", "lanes that step together take the same rows of each: pass --combine average"),
        (
            settings.shuffle != "auto" and replaces(make("shuffle", settings.shuffle)),
            "rows are drawn without replacement: leave --shuffle iid out",
        ),
        (settings.keep_memory, "a later run would know nothing of the pilot: leave --keep-memory and --from out"),
    ]
