"""An example: notes that people leave about hosts. One line in `homeostat/components.py` adds it."""

from homeostat.contracts.component import CliEntry, Component, NavigationEntry, Reference

COMPONENT = Component(
    name="notes",
    summary="notes that people leave about hosts",
    tables=(Reference("examples.component.journal"),),
    settings=Reference("examples.component.settings:NotesSettings"),
    events=(Reference("examples.component.journal"),),
    sentence=Reference("examples.component.journal:sentence"),
    armed=("notes",),
    replay=Reference("examples.component.journal:REPLAY"),
    server=Reference("examples.component.server:assemble"),
    routers=(Reference("examples.component.server:router"), Reference("examples.component.server:pages")),
    navigation=(NavigationEntry("notes", "Notes", 60),),
    cli=(CliEntry("note", Reference("examples.component.cli:commands")),),
    exposure=Reference("examples.component.server:exposure"),
    checkers=(Reference("examples.component.journal:check_wiped_when_armed"),),
    not_simulated="it has no loop",
)
