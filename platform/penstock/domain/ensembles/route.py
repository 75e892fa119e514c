"""Routes: which member a request goes to: that of the first rule whose conditions all hold."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.domain.ensembles.conditions import CONDITIONS, LABEL, Facts
from penstock.domain.ensembles.ensemble import EnsembleDefinition, EnsembleMember, Rule


def first(rules: Sequence[Rule], facts: Facts) -> int:
    """The place of the first rule that holds; the last one always does.

    What a condition asks of the request is worked out when it is reached, so what the earlier rules decide costs
    nothing of the later ones. Raises what `facts` raise.
    """
    return next(place for place, rule in enumerate(rules) if _holds(rule, facts))


def _holds(rule: Rule, facts: Facts) -> bool:
    """The label, which takes a call, is asked for only where all else holds."""
    when = sorted(rule.when.items(), key=lambda one: one[0] == LABEL)
    return all(CONDITIONS[name].holds(wanted, facts) for name, wanted in when)


def route(definition: EnsembleDefinition, facts: Facts) -> EnsembleMember:
    """The member that a request goes to."""
    return definition.member(definition.rules[first(definition.rules, facts)].use)
