"""Having a text model write a marketing strategy."""

from __future__ import annotations

from dataclasses import dataclass

from examples.common.text_model import TextModel

from .events import StrategyGenerate

_INSTRUCTIONS = (
    "You are a marketing strategist. Write a short strategy with concrete steps. Plain text, no greeting, no more than "
    "300 words. State no fact about the product that you were not given."
)


@dataclass(frozen=True)
class Strategy:
    """What the model wrote."""

    text: str
    model: str


async def write_strategy(model: TextModel, wanted: StrategyGenerate) -> Strategy:
    """A strategy for what the event describes. Errors as for `TextModel.write`."""
    lines = [f"Product: {wanted.product}"]
    if wanted.audience:
        lines.append(f"Audience: {wanted.audience}")
    if wanted.goal:
        lines.append(f"Goal: {wanted.goal}")
    return Strategy(await model.write(_INSTRUCTIONS, "\n".join(lines)), model.name)
