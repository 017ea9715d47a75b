"""The record of the fleet: hosts, nodes, the gate, and who may use the server."""

from homeostat.contracts.component import CliEntry, Component, Reference

COMPONENT = Component(
    name="fleet",
    summary="hosts and nodes: alive, dead, fenced, held",
    tables=(Reference("homeostat.fleet.store"), Reference("homeostat.fleet.claims")),
    settings=Reference("homeostat.fleet.settings:FleetSettings"),
    events=(Reference("homeostat.contracts.events.fleet"),),
    history=(Reference("homeostat.contracts.events.fleet"),),
    sentence=Reference("homeostat.fleet.journal:sentence"),
    owners=Reference("homeostat.fleet.journal:find_owners"),
    retention=Reference("homeostat.fleet.journal:RETENTION"),
    replay=Reference("homeostat.fleet.journal:REPLAY"),
    checkers=(
        Reference("homeostat.sim.checkers.hosts:check_two_witnesses"),
        Reference("homeostat.sim.checkers.actions:check_through_the_gate"),
    ),
    routers=(Reference("homeostat.fleet.api:nodes_router"), Reference("homeostat.fleet.api:hosts_router")),
    cli=(
        CliEntry("node", Reference("homeostat.fleet.cli:node_commands")),
        CliEntry("host", Reference("homeostat.fleet.cli:host_commands")),
        CliEntry("arm", Reference("homeostat.fleet.cli:arm")),
    ),
)
