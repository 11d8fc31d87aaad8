"""What `prune` wrote down of the point that it took."""

from __future__ import annotations

from pydantic import TypeAdapter

from pipelines.bundle import Lineage
from pipelines.config import Form


def chosen_form(lineage: Lineage) -> Form:
    """The quantization of the chosen point."""
    form: Form = TypeAdapter(Form).validate_python(lineage["stages"][-1]["quantization"])
    return form
