"""Rules: those of a route, and the classifier whose labels they may read, as their operator wrote them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from penstock.domain.api_errors import BadRequest
from penstock.domain.ensembles.conditions import CONDITIONS, LABEL
from penstock.domain.ensembles.ensemble import Classifier, EnsembleMember, Rule
from penstock.domain.ensembles.fields import a_list, a_text, a_whole_number, an_object, params_of

MOST_RULES: Final = 50
MOST_CLASSES: Final = 100
"""Labels of a classifier."""
MOST_CLASS_CHARS: Final = 100
MOST_PROMPT: Final = 20_000
READS_CHARS: Final = 4_000
LEAST_READS_CHARS: Final = 100
MOST_READS_CHARS: Final = 1_000_000
PROMPT: Final = (
    "Below is a request. Say which one of these labels fits it best: reply with that label and nothing else.\n\n"
    "{labels}\n\nThe request:\n\n{request}"
)
_PARAMS: Final[Mapping[str, Any]] = {"temperature": 0, "max_tokens": 1_024}
"""What it is asked with, unless its own params say otherwise: some models think aloud before they say a label."""


def classifier(value: Any, members: tuple[EnsembleMember, ...], name: str) -> Classifier:
    """Who says what a request is about."""
    fields = an_object(value, "classifier", {"model", "labels", "prompt", "reads_chars", "params"})
    model = a_text(fields, "model", "classifier")
    if model == name:
        raise BadRequest("An ensemble can't be its own classifier.", param="classifier.model")
    labels = tuple(_label(one, place) for place, one in enumerate(_labels(fields)))
    if len({one.casefold() for one in labels}) < len(labels):
        raise BadRequest("Two labels are the same but for upper and lower case.", param="classifier.labels")
    prompt = a_text(fields, "prompt", "classifier", MOST_PROMPT) if "prompt" in fields else PROMPT
    if "{request}" not in prompt:
        raise BadRequest("A classifier's prompt has '{request}' where it reads it.", param="classifier.prompt")
    reads = a_whole_number(fields, "reads_chars", "classifier", READS_CHARS, LEAST_READS_CHARS, MOST_READS_CHARS)
    params = {**_PARAMS, **params_of(fields.get("params", {}), "classifier.params")}
    taken = {one.label for one in members}
    label = next(one for one in ("classifier", *(f"classifier#{n}" for n in range(2, 99))) if one not in taken)
    return Classifier(EnsembleMember(model, params, label=label), labels, prompt, reads)


def _labels(fields: Mapping[str, Any]) -> list[Any]:
    if "labels" not in fields:
        message = "Missing required parameter: 'classifier.labels'."
        raise BadRequest(message, code="missing_required_parameter", param="classifier.labels")
    return a_list(fields["labels"], "classifier.labels", 1, MOST_CLASSES)


def _label(value: Any, place: int) -> str:
    if not isinstance(value, str) or not value or value != value.strip() or len(value) > MOST_CLASS_CHARS:
        message = f"A label is a text of 1 to {MOST_CLASS_CHARS} characters, without space at its ends."
        raise BadRequest(message, param=f"classifier.labels[{place}]")
    if not value.isprintable():
        raise BadRequest("A label is of one line.", param=f"classifier.labels[{place}]")
    return value


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
