"""What can be broken on a host: processes killed or frozen, processors, disk or network kept busy or cut,
another host's power switched off.

Each injector has six verbs, `probe plan inject prove undo verify_undone`, with plain JSON records in and out,
and runs as a short-lived process: `python -m homeostat.drills.injectors VERB --plan FILE --config node.yaml`.
Never a shell. Undoing is the keeper's (`node_keeper`): every step is on disk before its act.
"""
