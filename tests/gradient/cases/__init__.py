"""The rows of the rule tests: `CASES` has one list an op, a row a variant."""

from .common import Array, Case, Fixed
from .elementwise import ELEMENTWISE
from .linear import LINEAR
from .normalisation import NORMALISATION
from .pooling import POOLING
from .reduction import REDUCTION
from .shape import SHAPE

__all__ = ["CASES", "Array", "Case", "Fixed"]

CASES: dict[str, list[Case]] = {
    **ELEMENTWISE,
    **SHAPE,
    **REDUCTION,
    **NORMALISATION,
    **LINEAR,
    **POOLING,
}
