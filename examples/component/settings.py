"""The section `notes` of server.yaml."""

from pydantic import BaseModel


class NotesSettings(BaseModel, extra="forbid"):
    """How many notes are too many."""

    notes_max: int = 10
