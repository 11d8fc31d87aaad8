"""The key of an endpoint: read from the environment, put into requests, and taken out of everything else."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pipelines.errors import RecipeError

if TYPE_CHECKING:
    import httpx


class Key:
    """What the variable of this name holds; None is an endpoint that wants no key. Nothing prints it."""

    def __init__(self, variable: str | None) -> None:
        self.variable = variable
        self.__value = "" if variable is None else _read(variable)

    def __repr__(self) -> str:
        return "Key(none)" if self.variable is None else f"Key(${self.variable})"

    def __reduce__(self) -> tuple[type[Key], tuple[str | None]]:
        return Key, (self.variable,)

    def sign(self, request: httpx.Request) -> httpx.Request:
        """Put the key into a request's headers."""
        if self.__value:
            request.headers["Authorization"] = f"Bearer {self.__value}"
        return request

    def is_in(self, text: str) -> bool:
        """Whether a text from outside repeats the key."""
        return bool(self.__value) and self.__value in text

    def hidden(self, text: str) -> str:
        """A message from outside, the key replaced where an endpoint repeats it."""
        return text.replace(self.__value, "***") if self.__value else text


def _read(variable: str) -> str:
    value = os.environ.get(variable, "").strip()
    if not value:
        raise RecipeError(
            f"teach.key_variable: ${variable} is not set; export the endpoint's key under that name, or write null"
        )
    # A header of other characters would fail inside the HTTP library, with a message that holds the key.
    if not all("!" <= character <= "~" for character in value):
        raise RecipeError(
            f"teach.key_variable: ${variable} holds blanks or characters outside ASCII; it is no key, export it again"
        )
    return value
