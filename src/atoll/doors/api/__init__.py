"""Control's HTTP door: commands over `POST /exec`, and signing in to VMs' web pages.

It listens on loopback only; HAProxy is in front of it, and says for which host and from which
address a request came.
"""
