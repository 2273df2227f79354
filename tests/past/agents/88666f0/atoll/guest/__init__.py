"""What runs inside a VM: the agent and the wire format it shares with the engine.

Standard library only: these files are copied into every image, so nothing here may import another
part of Atoll.
"""
