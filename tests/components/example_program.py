"""A server with the example on its list, as a program: settings and a folder with the example's revision.

In production the list has one more line and the revision is one more file; here both are arguments.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # the example is no installed package

from examples.component.component import COMPONENT

from homeostat.components import COMPONENTS
from homeostat.kernel.config import load
from homeostat.server.main import main
from homeostat.server.settings import server_settings

if __name__ == "__main__":
    revisions, config = map(Path, sys.argv[1:])
    with_example = (*COMPONENTS, COMPONENT)
    main(load(server_settings(with_example), config), with_example, (revisions,))
