"""Units: what must be cut together, read off the graph.

In reading order: `groups` (slots, union-find and its result, `Groups`), `ties` (what a rule can say), `rules`
(the tie table), `moving` (its rules for ops that move indices about), `reshape` (how axes correspond).
"""

from onnxprune.units.groups import Contraction, Groups, Member, Role, Section, same_units, unit_groups

__all__ = ["Contraction", "Groups", "Member", "Role", "Section", "same_units", "unit_groups"]
