"""Start what a drill's clean-up found to be down, by the program that this host's own file names for it.

No fault and no undo: a service is started by its profile, `programs.restart-PROFILE`. Python3.9: it is
shipped to hosts.
"""

from __future__ import annotations

import subprocess

from homeostat.drills.injectors.permitted import Permitted
from homeostat.kernel.errors import GiveUp, NotAllowed


def restart(host: Permitted, profile: str) -> str:
    """The name of the program that was run, to its end. NotAllowed without one; GiveUp when it fails."""
    name = f"restart-{profile}"
    program = host.programs.get(name)
    if not host.enabled or program is None:
        raise NotAllowed(f"its {host.file} has no drills.programs.{name}; start it there")
    argv = [word.replace("{host}", host.host) for word in program.argv]
    try:
        # A session of its own: what it starts outlives us.
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
            timeout=program.timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise GiveUp(f"{argv[0]}: no end within {program.timeout_s:g} s") from None
    except OSError as error:
        raise GiveUp(f"{argv[0]}: cannot be run ({error.strerror})") from error
    if done.returncode != 0:
        raise GiveUp(f"{argv[0]}: it ended with {done.returncode}")
    return name
