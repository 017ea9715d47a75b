"""The schema's history, run by `upgrade`.

One line of revisions, never two heads. A file is `versions/NNNN_<component>_<what>.py`, its revision id is
`NNNN`, its `down_revision` the number before: 0001 is the kernel's, each component with tables adds the next
free number. A published revision is never edited, and it stays when its component is taken off the list:
the rows are kept. A revision is written by hand (the names come from the naming convention of `METADATA`:
`pk_`, `uq_`, `ix_` with table and columns); the component's record names the module with its tables, and
tests/contracts compares the two on both engines.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import text

from homeostat.kernel.database import open_engine
from homeostat.kernel.errors import BadInput

_UPGRADE_LOCK = 0x484F4D45  # any constant, the same in every server: "HOME"


def upgrade(url: str, revisions: Sequence[Path] = ()) -> None:
    """Bring the schema to this version's, in one transaction; two servers at once wait for each other.

    `revisions` are folders with further revisions, of a component that is not in this package. BadInput
    when the database was made by a newer version.
    """
    # Alembic takes 0.1 s to import, and only a server needs it.
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    engine = open_engine(url)
    config = Config()
    config.set_main_option("script_location", "homeostat:migrations")
    if revisions:
        own = Path(__file__).with_name("versions")
        config.set_main_option("path_separator", "newline")
        config.set_main_option("version_locations", "\n".join(map(str, (own, *revisions))))
    try:
        with engine.begin() as connection:
            if engine.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _UPGRADE_LOCK})
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except CommandError as error:
        shown = engine.url.render_as_string(hide_password=True)
        raise BadInput(
            "database_url", shown, f"a database of this version or an older one ({error})"
        ) from error
    finally:
        engine.dispose()
