"""Conformance: what every part must hold, for streamsgd's own parts and for yours.

>>> from streamsgd.testing import check_loss
>>> from streamsgd.kernels.parts.losses import Huber
>>> check_loss(Huber(delta=2.0))

Each check returns nothing and raises AssertionError with what was expected, what came, and at which point.
All are deterministic and take a few seconds, which is the compilation of the part.
"""

from streamsgd.testing.backends import check_backend as check_backend
from streamsgd.testing.backends import check_task as check_task
from streamsgd.testing.column_kinds import check_column_kind as check_column_kind
from streamsgd.testing.losses import check_loss as check_loss
from streamsgd.testing.models import check_model as check_model
from streamsgd.testing.optimizers import check_optimizer as check_optimizer
from streamsgd.testing.penalties import check_penalty as check_penalty
from streamsgd.testing.phases import check_phase as check_phase
from streamsgd.testing.plans import check_plan as check_plan
from streamsgd.testing.plans import check_sampler as check_sampler
from streamsgd.testing.schedules import check_schedule as check_schedule
from streamsgd.testing.sources import check_source as check_source
