"""The undo keeper: a process that undoes every injected fault of this host in time, whoever dies.

One folder, standard library only, any python3 from 3.8: it can be copied to a host and run there, alone, and
so it names its own modules relatively. It never injects anything.

Who injects calls `orders`, which writes a ledger into the state folder, among it the `steps` of the undo.
`daemon` reads the ledgers, decides what is due and undoes it step by step. The invariants stand with
the modules: a process is exactly the one that was meant and a file is whole (`machine`), a step is
data and no command (`steps`), no act follows its own undo, and a killed keeper is started again (`daemon`).
"""

from __future__ import annotations
