"""The record of recovery: what is done about a dead host."""

from homeostat.contracts.component import Component, Reference

COMPONENT = Component(
    name="recovery",
    summary="fences dead hosts, marks them at the cloud, starts their guests elsewhere",
    armed=("recovery",),
    checkers=(
        Reference("homeostat.sim.checkers.hosts:check_on_one_host"),
        Reference("homeostat.sim.checkers.hosts:check_fenced_before_moved"),
        Reference("homeostat.sim.checkers.hosts:check_dead_host_fenced"),
        Reference("homeostat.sim.checkers.hosts:check_no_guest_lost"),
    ),
    server=Reference("homeostat.recovery.server:assemble"),
)
