"""Options of Linux sockets that Python has no name for before 3.13."""

from __future__ import annotations

import socket

# Linux, include/uapi/linux/in.h
IP_FREEBIND: int = getattr(socket, "IP_FREEBIND", 15)  # bind to an address that may come later
IP_TRANSPARENT: int = getattr(socket, "IP_TRANSPARENT", 19)
