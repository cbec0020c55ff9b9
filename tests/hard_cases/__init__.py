"""Models that are hard in one way each, and what becomes of them; docs/hard-cases.md is made from these tables."""

from hard_cases import control, interface, precision, quantised, structure
from hard_cases.case import Case

CASES: list[Case] = [
    *precision.CASES,
    *structure.CASES,
    *interface.CASES,
    *control.CASES,
    *quantised.CASES,
]
