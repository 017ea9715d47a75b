"""A real OpenStack with two controllers on one Linux machine, to be drilled. Not part of the product.

`python -m testbed up|down|status|node`. Each node is a set of namespaces with its own disk, sshd and
supervisor. Invariant: whatever `up` made, also one that was killed half-way, `down` finds and removes.
"""
