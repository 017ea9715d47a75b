"""A node process with a fake role, for tests that kill it: fake_role_node.py NODE.YAML DIARY WORD..."""

import asyncio
import sys
from pathlib import Path

from homeostat.kernel.config import load
from homeostat.kernel.errors import HomeostatError
from homeostat.kernel.terminal import configure_logging
from homeostat.node import main as node
from homeostat.node.roles import RoleCommand
from homeostat.node.runner_protocol import RunnerProtocol
from homeostat.node.settings import NodeSettings

settings = load(NodeSettings, Path(sys.argv[1]))
role = str(Path(__file__).with_name("fake_role.py"))
command = RoleCommand("fake", (sys.executable, role, *sys.argv[2:]), settings.runner_stop_s)
configure_logging(settings.log_level)
try:
    asyncio.run(node.run(settings, [node.NodeRole(command, RunnerProtocol.on_link)], Path(sys.argv[1])))
except HomeostatError as error:
    sys.exit(f"homeostat node: {error}")
