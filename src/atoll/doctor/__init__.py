"""`atoll doctor`: what is missing or degraded on this machine, and what to type about it.

Every check looks only, changes nothing, ends within seconds and works on a broken machine.
"""
