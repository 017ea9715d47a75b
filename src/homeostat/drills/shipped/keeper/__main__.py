"""Runs the undo keeper from its folder, wherever it lies: `python3 keeper VERB --state FOLDER`.

`python3 -m zipapp keeper` makes one file of it that does the same.
"""

import sys
from importlib import import_module
from types import ModuleType

if __package__:
    from .orders import main
else:
    # Run by its path there is no package around: the folder, or the archive, becomes one.
    package = ModuleType("keeper")
    package.__path__ = [sys.path.pop(0)]
    sys.modules["keeper"] = package
    main = import_module("keeper.orders").main

sys.exit(main())
