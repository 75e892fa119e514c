"""Classifiers: who says what a request is about, as an operator wrote it: by a text that it writes, or by vectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from penstock.domain.api_errors import BadRequest
from penstock.domain.ensembles.ensemble import ClassifiedBy, Classifier, EnsembleMember
from penstock.domain.ensembles.fields import a_list, a_text, a_whole_number, an_object, one_of, params_of

MOST_CLASSES: Final = 100
"""Labels."""
MOST_CLASS_CHARS: Final = 100
MOST_TEXTS: Final = 200
"""That stand for labels, all together: they are in every request that it is asked."""
MOST_TEXT_CHARS: Final = 2_000
MOST_PROMPT: Final = 20_000
READS_CHARS: Final = 4_000
EMBEDS_CHARS: Final = 1_000
"""The same of one that embeds: many such models read 512 tokens at most, and refuse what is longer."""
LEAST_READS_CHARS: Final = 100
MOST_READS_CHARS: Final = 1_000_000
PROMPT: Final = (
    "Below is a request. Say which one of these labels fits it best: reply with that label and nothing else.\n\n"
    "{labels}\n\nThe request:\n\n{request}"
)
_PARAMS: Final[Mapping[ClassifiedBy, Mapping[str, Any]]] = {
    ClassifiedBy.CHAT: {"temperature": 0, "max_tokens": 1_024},
    ClassifiedBy.EMBEDDINGS: {"encoding_format": "base64"},
}
"""What it is asked with, unless its own params say otherwise: some models think aloud before they say a label, and
vectors are a quarter as long in base64."""
_READ_FORMATS: Final = ("base64", "float")


def classifier(value: Any, members: tuple[EnsembleMember, ...], name: str) -> Classifier:
    """Who says what a request is about."""
    fields = an_object(value, "classifier", {"model", "by", "labels", "prompt", "examples", "reads_chars", "params"})
    model = a_text(fields, "model", "classifier")
    if model == name:
        raise BadRequest("An ensemble can't be its own classifier.", param="classifier.model")
    by = one_of(fields, "by", ClassifiedBy.CHAT, "classifier")
    labels = tuple(_label(one, place) for place, one in enumerate(_labels(fields)))
    if len({one.casefold() for one in labels}) < len(labels):
        raise BadRequest("Two labels are the same but for upper and lower case.", param="classifier.labels")
    taken = {one.label for one in members}
    label = next(one for one in ("classifier", *(f"classifier#{n}" for n in range(2, 99))) if one not in taken)
    reads = EMBEDS_CHARS if by is ClassifiedBy.EMBEDDINGS else READS_CHARS
    made = Classifier(
        EnsembleMember(model, _params(fields, by), label=label),
        labels,
        prompt=_prompt(fields, by),
        reads_chars=a_whole_number(fields, "reads_chars", "classifier", reads, LEAST_READS_CHARS, MOST_READS_CHARS),
        by=by,
        examples=_examples(fields, by, labels),
    )
    if made.embeds:
        _check_texts(made)
    return made


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


def _prompt(fields: Mapping[str, Any], by: ClassifiedBy) -> str:
    if by is ClassifiedBy.EMBEDDINGS:
        if "prompt" in fields:
            message = "A classifier by embeddings has no prompt: it compares the request with 'examples' of each label."
            raise BadRequest(message, param="classifier.prompt")
        return ""
    prompt = a_text(fields, "prompt", "classifier", MOST_PROMPT) if "prompt" in fields else PROMPT
    if "{request}" not in prompt:
        raise BadRequest("A classifier's prompt has '{request}' where it reads it.", param="classifier.prompt")
    return prompt


def _params(fields: Mapping[str, Any], by: ClassifiedBy) -> Mapping[str, Any]:
    params = {**_PARAMS[by], **params_of(fields.get("params", {}), "classifier.params")}
    if by is ClassifiedBy.EMBEDDINGS and params["encoding_format"] not in _READ_FORMATS:
        message = f"A classifier's vectors are read as {' or '.join(_READ_FORMATS)}."
        raise BadRequest(message, param="classifier.params.encoding_format")
    return params


def _examples(fields: Mapping[str, Any], by: ClassifiedBy, labels: tuple[str, ...]) -> Mapping[str, tuple[str, ...]]:
    at = "classifier.examples"
    if "examples" not in fields:
        return {}
    if by is not ClassifiedBy.EMBEDDINGS:
        message = "Only a classifier with 'by: embeddings' has examples; one that writes text has them in its prompt."
        raise BadRequest(message, param=at)
    if not isinstance(fields["examples"], dict):
        raise BadRequest(f"{at} are lists of texts, by their labels.", param=at)
    if odd := next((one for one in fields["examples"] if one not in labels), None):
        message = f"{str(odd)[:100]!r} is no label; there are: {', '.join(labels)}."
        raise BadRequest(message, param=f"{at}.{str(odd)[:100]}")
    return {
        label: tuple(_text(one, f"{at}.{label}[{place}]") for place, one in enumerate(_listed(each, f"{at}.{label}")))
        for label, each in fields["examples"].items()
    }


def _listed(value: Any, at: str) -> list[Any]:
    return a_list(value, at, 1, MOST_TEXTS)


def _text(value: Any, at: str) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > MOST_TEXT_CHARS or "\0" in value:
        raise BadRequest(f"An example is a text of 1 to {MOST_TEXT_CHARS:,} characters.", param=at)
    return value.encode("utf-8", "replace").decode()  # half a surrogate pair is no text


def _check_texts(made: Classifier) -> None:
    """Each stands for one label, or nobody could say for which."""
    at = "classifier.examples"
    if len(made.texts) > MOST_TEXTS:
        message = f"All labels together have {MOST_TEXTS} texts at most; a label without examples has one, its name."
        raise BadRequest(message, param=at)
    met: dict[str, str] = {}
    for label, text in made.texts:
        if (before := met.setdefault(text, label)) != label:
            raise BadRequest(f"{text[:100]!r} stands for {before!r} and for {label!r}.", param=at)
