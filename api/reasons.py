"""Why an upload was rejected, in the form of a problem document (RFC 9457)."""

from __future__ import annotations

from pydantic import BaseModel, computed_field


class Reason(BaseModel):
    """One finding of the validation; `detail` names what is wrong and what to do next."""

    code: str
    detail: str

    @computed_field
    def type(self) -> str:
        """Where this code is explained."""
        return f"/errors/{self.code}"

    @computed_field
    def title(self) -> str:
        """What kind of problem this is, in words."""
        return f"The upload was rejected: {self.code.replace('_', ' ')}"
