"""A text model behind an HTTP API, in the form most providers offer: `POST <url>/chat/completions`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import httpx

from holdfast import NonRetriableError, RetryAfterError

TRANSIENT = frozenset({408, 429, 500, 502, 503, 504, 529})
"""Statuses after which the same request may succeed."""
MAX_WAIT_SECONDS = 60.0
"""The longest Retry-After that is waited for."""


class ModelUnavailableError(Exception):
    """The model could not be asked, or broke off; trying again makes sense."""

    status_code = 503
    """What it counts as for a retry preset."""


class ModelAnswerError(Exception):
    """The model answered something unusable; asked again, it may do better."""

    status_code = 502
    """What it counts as for a retry preset."""


@dataclass(frozen=True)
class TextModel:
    """One model of one provider."""

    client: httpx.AsyncClient
    url: str
    """Where the API is, such as `https://api.openai.com/v1`."""
    name: str
    """Which model."""
    key: str = field(repr=False)
    """The provider's key. It goes into one header of the request, and nowhere else."""
    timeout: float = 60.0
    """Seconds that one answer may take."""

    async def write(self, instructions: str, request: str) -> str:
        """What the model answers. Meant for the body of a step, which tries again.

        Raises:
            NonRetriableError: the provider refuses the request or the key.
            RetryAfterError: the provider asks to come back later.
            ModelUnavailableError: it can't be reached, or has a problem of its own.
            ModelAnswerError: the answer has no text.
        """
        body = {
            "model": self.name,
            "messages": [{"role": "system", "content": instructions}, {"role": "user", "content": request}],
        }
        try:
            response = await self.client.post(
                f"{self.url}/chat/completions",
                json=body,
                headers={"Authorization": f"Bearer {self.key}"},
                timeout=self.timeout,
            )
        except httpx.TimeoutException as error:
            raise ModelUnavailableError(f"the text model did not answer within {self.timeout:g} s") from error
        except httpx.TransportError as error:
            raise ModelUnavailableError(f"the text model can't be reached: {type(error).__name__}") from error
        self._refuse(response)
        return _text(response)

    def _refuse(self, response: httpx.Response) -> None:
        if response.is_success:
            return
        # providers repeat the key in their messages; a run's page must not show it
        said = response.text[:300].replace(self.key, "[key]")
        message = f"the text model answered {response.status_code}: {said}"
        if response.status_code not in TRANSIENT:
            raise NonRetriableError(message)
        wait = response.headers.get("retry-after", "")
        if wait.isdecimal() and wait.isascii():
            if int(wait) > MAX_WAIT_SECONDS:
                raise NonRetriableError(f"{message}; it asks to wait {wait} s, and at most {MAX_WAIT_SECONDS:g} s are")
            raise RetryAfterError(message, int(wait))
        raise ModelUnavailableError(message)


def _text(response: httpx.Response) -> str:
    try:
        answer: Any = response.json()["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError) as error:
        raise ModelAnswerError("the text model's answer has no choices[0].message.content") from error
    if not isinstance(answer, str) or not answer.strip():
        raise ModelAnswerError("the text model answered without a text")
    return answer.strip()
