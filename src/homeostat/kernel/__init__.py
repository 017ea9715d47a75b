"""The ground floor: journal, appender, database, clock, loops, bus, access, errors.

It knows no noun of the domain: nothing here has heard of a host, a fault or a lease.
"""
