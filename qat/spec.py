"""The base of every specification that comes from a file."""

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """Unknown keys and silent conversions are errors, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
