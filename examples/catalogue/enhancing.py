"""Having a text model write what a product page lacks."""

from __future__ import annotations

import json
from dataclasses import dataclass

from examples.common.text_model import ModelAnswerError, TextModel

from .products import Gap
from .scraping.product import MAX_DESCRIPTION, MAX_TITLE, clean_text

_INSTRUCTIONS = (
    "You write product texts for an online shop. Answer with a JSON object that has the keys title and description, "
    "two strings, and nothing else. State no fact that you were not given."
)


@dataclass(frozen=True)
class ProductText:
    """A product's text."""

    title: str
    description: str


async def write_text(model: TextModel, gap: Gap) -> ProductText:
    """A title and a description; what the page has is kept.

    Raises:
        ModelAnswerError: the model's answer is unusable; asked again, it may do better.
        Exception: whatever `TextModel.write` raises.
    """
    known = {
        "title": gap.title,
        "description": gap.description,
        "price": gap.price and f"{gap.price} {gap.currency or ''}".strip(),
        "page": gap.url,
        "pictures": gap.images[:5],
    }
    answer = await model.write(_INSTRUCTIONS, json.dumps(known, ensure_ascii=False))
    written = _read(answer)
    title = gap.title or clean_text(written.get("title"), MAX_TITLE)
    description = gap.description or clean_text(written.get("description"), MAX_DESCRIPTION)
    if not title or not description:
        raise ModelAnswerError("the text model's answer lacks a title or a description")
    return ProductText(title, description)


def _read(answer: str) -> dict[str, str]:
    # many models put JSON into a fenced block whatever they are told
    text = answer.strip().removeprefix("```json").removeprefix("```").removesuffix("```")
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ModelAnswerError("the text model did not answer in JSON") from error
    if not isinstance(found, dict):
        raise ModelAnswerError("the text model did not answer with a JSON object")
    return {key: value for key, value in found.items() if isinstance(value, str)}
