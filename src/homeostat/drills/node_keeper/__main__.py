"""This folder as a program, wherever it lies: `python3 node_keeper VERB --state FOLDER`.

`python3 -m zipapp node_keeper` makes one file of it that does the same.
"""

import sys
from importlib import import_module
from types import ModuleType

if __package__:
    from .program import main
else:
    # Run by its path there is no package around: the folder, or the archive, becomes one.
    package = ModuleType("node_keeper")
    package.__path__ = [sys.path.pop(0)]
    sys.modules["node_keeper"] = package
    main = import_module("node_keeper.program").main

sys.exit(main())
