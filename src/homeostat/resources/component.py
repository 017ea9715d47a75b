"""The record of resources: what nodes start, watch and stop."""

from homeostat.contracts.component import CliEntry, Component, Reference

COMPONENT = Component(
    name="resources",
    summary="services and guests that nodes start, watch and stop",
    events=(Reference("homeostat.contracts.events.resources"),),
    sentence=Reference("homeostat.resources.journal:sentence"),
    server=Reference("homeostat.resources.server:assemble"),
    routers=(Reference("homeostat.resources.api:router"),),
    cli=(CliEntry("resource", Reference("homeostat.resources.cli:commands")),),
)
