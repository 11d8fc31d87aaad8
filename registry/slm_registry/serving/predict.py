"""POST /predict: a label a text, or the spans of each."""

# Without postponed annotations: FastAPI reads those of functions and classes that are made in `add_predict`.

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any

from slm_registry.serving.httptypes import PredictResponse, SpansResponse

if TYPE_CHECKING:
    from fastapi import FastAPI

Answer = Callable[[list[str]], Awaitable[PredictResponse | SpansResponse]]


def add_predict(
    app: "FastAPI",
    answer: Answer,
    kind: type[PredictResponse] | type[SpansResponse],
    refusals: dict[int | str, dict[str, Any]],
    *,
    most_texts: int,
    characters: int,
) -> None:
    """Answer POST /predict of at most `most_texts` texts of so many `characters` each, with what is of one `kind`."""
    from pydantic import BaseModel, ConfigDict, Field, model_validator
    from pydantic_core import PydanticCustomError

    Text = Annotated[str, Field(max_length=characters)]

    class PredictRequest(BaseModel):
        """One text, or many."""

        model_config = ConfigDict(extra="forbid", strict=True)
        texts: Text | Annotated[list[Text], Field(max_length=most_texts)] = Field(examples=[["where is my parcel"]])

        @model_validator(mode="before")
        @classmethod
        def only_texts(cls, value: Any) -> Any:
            # One error: an error for each of many unknown keys would hold up every other request.
            if isinstance(value, dict) and value.keys() != {"texts"}:
                raise PydanticCustomError("fields", "Give one field, texts, and no other")
            return value

    @app.post("/predict", responses=refusals, response_model=kind)
    async def predict(request: PredictRequest) -> Any:
        """Label one or many texts."""
        return await answer([request.texts] if isinstance(request.texts, str) else request.texts)
