"""How things in a drill file are called, and that nothing unknown may stand in it."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

NAME = r"^[a-z][a-z0-9-]{0,62}$"
"""Of drills, suites, monitors and operations: fit for a file name everywhere, so never an alias."""

Name = Annotated[str, Field(pattern=NAME)]
STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)

Host = Annotated[str, Field(min_length=1, max_length=253)]
