"""The record of leases: hosts that projects reserve for a time."""

from homeostat.contracts.component import CliEntry, Component, NavigationEntry, Reference

COMPONENT = Component(
    name="leases",
    summary="hosts that projects reserve for a time, kept when hosts fail",
    tables=(Reference("homeostat.leases.store"),),
    settings=Reference("homeostat.leases.settings:LeasesSettings"),
    events=(Reference("homeostat.contracts.events.leases"),),
    sentence=Reference("homeostat.leases.journal:sentence"),
    owners=Reference("homeostat.leases.journal:find_owners"),
    retention=Reference("homeostat.leases.journal:RETENTION"),
    replay=Reference("homeostat.leases.journal:REPLAY"),
    checkers=(Reference("homeostat.sim.checkers.leases:check_no_overlap"),),
    simulated_use=Reference("homeostat.leases.simulated_use:use_leases"),
    server=Reference("homeostat.leases.server:assemble"),
    routers=(
        Reference("homeostat.leases.api:router"),
        Reference("homeostat.leases.hosts_api:router"),
        Reference("homeostat.leases.pages:router"),
    ),
    navigation=(NavigationEntry("leases", "Leases", 15),),
    cli=(
        CliEntry("lease", Reference("homeostat.leases.cli:commands")),
        CliEntry("hosts", Reference("homeostat.leases.hosts_cli:commands"), under="lease"),
    ),
    exposure=Reference("homeostat.leases.outlook:exposure"),
)
