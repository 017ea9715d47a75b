"""The record of faults: detection, inspection, timelines, what-if."""

from homeostat.contracts.component import CliEntry, Component, NavigationEntry, Reference

COMPONENT = Component(
    name="faults",
    summary="what is wrong, since when, and why",
    tables=(Reference("homeostat.faults.store"),),
    settings=Reference("homeostat.faults.settings:FaultsSettings"),
    events=(Reference("homeostat.contracts.events.faults"),),
    sentence=Reference("homeostat.faults.journal:sentence"),
    owners=Reference("homeostat.faults.journal:find_owners"),
    retention=Reference("homeostat.faults.journal:RETENTION"),
    replay=Reference("homeostat.faults.journal:REPLAY"),
    foundation=Reference("homeostat.faults.server:lay_foundation"),
    write_path=Reference("homeostat.faults.server:ingest_dependencies"),
    server=Reference("homeostat.faults.server:assemble"),
    checkers=(
        Reference("homeostat.sim.checkers.faults:check_raised_before_cleared"),
        Reference("homeostat.sim.checkers.faults:check_one_fault_per_death"),
        Reference("homeostat.sim.checkers.recoveries:check_all_clear"),
    ),
    routers=(
        Reference("homeostat.faults.api:router"),
        Reference("homeostat.faults.what_if:router"),
        Reference("homeostat.faults.pages:router"),
    ),
    navigation=(NavigationEntry("faults", "Faults", 10),),
    cli=(
        CliEntry("fault", Reference("homeostat.faults.cli:commands")),
        CliEntry("what-if", Reference("homeostat.faults.cli:what_if_commands")),
        CliEntry("explain", Reference("homeostat.faults.cli:explain")),
        CliEntry("timeline", Reference("homeostat.faults.cli:timeline")),
    ),
)
