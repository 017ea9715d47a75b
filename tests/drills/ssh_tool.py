"""A tool that breaks something over SSH and renews it for ever: `ACCESS PLAN`. It is there to be killed."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from homeostat.drills.site import SshAccess
from homeostat.drills.transports.remote import SshTransport


async def main() -> None:
    transport = SshTransport("c1", SshAccess.model_validate_json(sys.argv[1]))
    record = json.loads(Path(sys.argv[2]).read_text())
    for verb in ("plan", "inject"):
        record = await transport.verb(verb, record)
    while True:
        await transport.renew(record["fault"])
        print("renewed", flush=True)
        await asyncio.sleep(0.2)


asyncio.run(main())
