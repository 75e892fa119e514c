"""Rules: those of a route, which may read its classifier's labels, as their operator wrote them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from penstock.domain.api_errors import BadRequest
from penstock.domain.ensembles.conditions import CONDITIONS, LABEL
from penstock.domain.ensembles.ensemble import Classifier, EnsembleMember, Rule
from penstock.domain.ensembles.fields import a_list, a_text, an_object

MOST_RULES: Final = 50


def used_rules(
    fields: Mapping[str, Any], members: tuple[EnsembleMember, ...], classifier: Classifier | None
) -> tuple[Rule, ...]:
    """Of a route, its default the last one."""
    labels = classifier.labels if classifier else ()
    rules = _rules(fields, {one.model for one in members}, labels)
    used = {one.use for one in rules}
    if unused := next((one.model for one in members if one.model not in used), None):
        raise BadRequest(f"No rule uses the member {unused!r}.", param="rules")
    if classifier and not any(LABEL in one.when for one in rules):
        raise BadRequest("No rule reads the classifier's label.", param="rules")
    return rules


def _rules(fields: Mapping[str, Any], models: set[str], labels: Collection[str]) -> tuple[Rule, ...]:
    written = a_list(fields["rules"], "rules", 1, MOST_RULES) if "rules" in fields else []
    rules = [_rule(one, f"rules[{place}]", models, labels) for place, one in enumerate(written)]
    if "default" in fields:
        rules.append(Rule(_used(a_text(fields, "default", ""), "default", models)))
    early = next((place for place, one in enumerate(rules[:-1]) if not one.when), None)
    if early is not None:
        message = "A rule without 'when' always holds: it must be the last, and without a 'default' behind it."
        raise BadRequest(message, param=f"rules[{early}]")
    if not rules or rules[-1].when:
        raise BadRequest("Where no rule holds there must be a member: add a 'default'.", param="default")
    return tuple(rules)


def _rule(value: Any, at: str, models: set[str], labels: Collection[str]) -> Rule:
    fields = an_object(value, at, {"when", "use"})
    use = _used(a_text(fields, "use", at), f"{at}.use", models)
    if "when" not in fields:
        return Rule(use)
    an_object(fields["when"], f"{at}.when", set(CONDITIONS))
    when: Mapping[str, Any] = fields["when"]
    if not when:
        raise BadRequest("'when' is empty: leave it out of the last rule.", param=f"{at}.when")
    for name, wanted in when.items():
        if not CONDITIONS[name].valid(wanted):
            raise BadRequest(f"{name!r} takes {CONDITIONS[name].takes}.", param=f"{at}.when.{name}")
    if (label := when.get(LABEL)) is not None and label not in labels:
        there = f"there are: {', '.join(labels)}" if labels else "the ensemble has no 'classifier'"
        raise BadRequest(f"{label[:100]!r} is no label; {there}.", param=f"{at}.when.{LABEL}")
    return Rule(use, when)


def _used(model: str, at: str, models: set[str]) -> str:
    if model not in models:
        raise BadRequest(f"{model[:200]!r} is no member; there are: {', '.join(sorted(models))}.", param=at)
    return model
