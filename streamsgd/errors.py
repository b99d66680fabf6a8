"""Every error that streamsgd raises on purpose, as one tree.

StreamSGDError
├── SettingsError     a setting is unknown, out of range, or contradicts another
│   └── BudgetError   the memory budget cannot hold the job
├── DataError         the data is missing, damaged, or not what the settings say it is
│   ├── SchemaError   two files disagree about a column
│   └── UnreadableError   bytes of a row group are damaged, which --unreadable skip leaves out
├── ModelError        a model or checkpoint file is damaged, newer, or of another job
├── DivergedError     the loss or the weights left the finite numbers
└── Stopped           not a failure: a time limit or SIGTERM came, and a checkpoint was saved

All of them mean "the user can fix it" (exit code 2), except `Stopped` (exit code 75).
Any other exception is a bug in streamsgd (exit code 1).
"""

from streamsgd.redact import redact


class StreamSGDError(Exception):
    """The root: what happened, where, and which knob mends it, in one sentence."""

    exit_code = 2

    in_flags: str | None = None
    """The message in the words of the command line, where `str` of it is in those of Python: `settings.words`."""

    def __init__(self, *words: object) -> None:
        super().__init__(*(redact(word) if isinstance(word, str) else word for word in words))


class SettingsError(StreamSGDError):
    """A setting is unknown, out of range, or contradicts another."""


class BudgetError(SettingsError):
    """The memory budget cannot hold the job; the message names the smallest one that can."""

    least = 0
    """That, in bytes."""


class DataError(StreamSGDError):
    """The data is missing, damaged, or not what the settings say it is."""


class SchemaError(DataError):
    """Two files disagree about a column in a way that no safe widening mends."""


class UnreadableError(DataError):
    """The bytes of a row group are damaged; the one error that `--unreadable skip` turns into left-out rows.

    Parameters
    ----------
    problem
        What is wrong, and where.
    remedy
        What to do about it, which is said where it was not done: the end of the message, with what joins it.

    """

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(problem + remedy)
        self.problem = problem


class ModelError(StreamSGDError):
    """A model or checkpoint file is damaged, newer than this version, or of another job."""


class ClusterError(StreamSGDError):
    """The workers of a Dask cluster are gone, too small, or cannot do the work; a checkpoint may be there to go on from."""


class DivergedError(StreamSGDError):
    """The loss or the weights left the finite numbers; the message says what to lower."""


class Stopped(StreamSGDError):  # noqa: N818  it is none
    """Training stopped on a time limit or SIGTERM after saving a checkpoint."""

    exit_code = 75
