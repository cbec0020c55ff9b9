"""Units: what must be cut together, read off the graph.

In reading order: `groups` (slots and their classes), `ties` (what a rule can say), `rules` (the tie table),
`moving` (its rules for ops that move indices about), `reshape` and `folding` (how axes correspond), `joining`
(union-find), `families` (units on the same axes, their makers and readers), `branches` (families that may go
whole).
"""

from onnxprune.units.groups import Contraction, Groups, Member, Role, Section, same_units
from onnxprune.units.joining import unit_groups

__all__ = ["Contraction", "Groups", "Member", "Role", "Section", "same_units", "unit_groups"]
