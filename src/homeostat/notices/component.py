"""The record of notices: subscriptions, silences, and what is sent to consumers."""

from homeostat.contracts.component import CliEntry, Component, NavigationEntry, Reference

COMPONENT = Component(
    name="notices",
    summary="subscriptions, silences, notices to consumers",
    tables=(Reference("homeostat.notices.store"),),
    settings=Reference("homeostat.notices.settings:NoticesSettings"),
    events=(Reference("homeostat.contracts.events.notices"),),
    history=(Reference("homeostat.contracts.events.notices"),),
    sentence=Reference("homeostat.notices.journal:sentence"),
    owners=Reference("homeostat.notices.journal:find_owners"),
    retention=Reference("homeostat.notices.journal:RETENTION"),
    replay=Reference("homeostat.notices.journal:REPLAY"),
    checkers=(
        Reference("homeostat.sim.checkers.faults:check_faults_notified"),
        Reference("homeostat.sim.checkers.faults:check_notified_once"),
        Reference("homeostat.sim.checkers.recoveries:check_told_in_order"),
    ),
    routers=(
        Reference("homeostat.notices.subscriptions_api:router"),
        Reference("homeostat.notices.api:router"),
        Reference("homeostat.notices.silences_api:router"),
        Reference("homeostat.notices.pages:router"),
    ),
    navigation=(
        NavigationEntry("subscriptions", "Subscriptions", 40),
        NavigationEntry("silences", "Silences", 50),
    ),
    cli=(
        CliEntry("subscription", Reference("homeostat.notices.cli:subscription_commands")),
        CliEntry("silence", Reference("homeostat.notices.cli:silence_commands")),
        CliEntry("notice", Reference("homeostat.notices.cli:notice_commands")),
    ),
)
