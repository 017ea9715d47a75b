"""A tool that breaks something through a node process and renews it for ever: `SERVER PLAN`; to be killed."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from homeostat.drills.site import SiteServer
from homeostat.drills.transports.remote import NodeTransport


async def main() -> None:
    transport = NodeTransport("n1", SiteServer.model_validate_json(sys.argv[1]))
    record = json.loads(Path(sys.argv[2]).read_text())
    for verb in ("plan", "inject"):
        record = await transport.verb(verb, record)
    while True:
        await transport.renew(record["fault"])
        print("renewed", flush=True)
        await asyncio.sleep(0.2)


asyncio.run(main())
