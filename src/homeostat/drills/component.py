"""The record of drills: faults on purpose, and what they prove."""

from homeostat.contracts.component import CliEntry, Component, NavigationEntry, Reference

COMPONENT = Component(
    name="drills",
    summary="faults on purpose, measured, judged and undone",
    tables=(Reference("homeostat.drills.store"),),
    events=(Reference("homeostat.contracts.events.drills"),),
    sentence=Reference("homeostat.drills.journal:sentence"),
    owners=Reference("homeostat.drills.journal:find_owners"),
    retention=Reference("homeostat.drills.journal:RETENTION"),
    replay=Reference("homeostat.drills.journal:REPLAY"),
    foundation=Reference("homeostat.drills.server:lay_foundation"),
    server=Reference("homeostat.drills.server:assemble"),
    routers=(
        Reference("homeostat.drills.api:router"),
        Reference("homeostat.drills.hosts_api:router"),
        Reference("homeostat.drills.pages:router"),
    ),
    navigation=(NavigationEntry("drills", "Drills", 20),),
    cli=(
        CliEntry("drill", Reference("homeostat.drills.cli:commands")),
        CliEntry("run", Reference("homeostat.drills.run_cli:run"), under="drill"),
        CliEntry("halt", Reference("homeostat.drills.run_cli:halt"), under="drill"),
        CliEntry("resume", Reference("homeostat.drills.run_cli:resume"), under="drill"),
        CliEntry("heal", Reference("homeostat.drills.run_cli:heal"), under="drill"),
        CliEntry("suite", Reference("homeostat.drills.run_cli:suite"), under="drill"),
        CliEntry("runs", Reference("homeostat.drills.cli:runs"), under="drill"),
        CliEntry("trends", Reference("homeostat.drills.cli:trends"), under="drill"),
        CliEntry("halt", Reference("homeostat.drills.cli:halt_node"), under="node"),
        CliEntry("resume", Reference("homeostat.drills.cli:resume_node"), under="node"),
    ),
)
