"""Published, versioned events: the only things one room may know of another.

`CATALOGUE` is the closed list. An event's name in the journal is its class name; a changed payload gets a
higher VERSION and an upcast from the old one; an unknown name is kept and skipped by readers.
"""

from homeostat.contracts.events import access, drills, faults, fleet, notices, resources
from homeostat.kernel.journal import Catalogue

CATALOGUE = Catalogue(
    (*access.EVENTS, *fleet.EVENTS, *resources.EVENTS, *faults.EVENTS, *notices.EVENTS, *drills.EVENTS),
    notices.UPCASTS,
)
