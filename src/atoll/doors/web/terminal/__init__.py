"""Terminals in the page: what is kept of one, who is attached to it, and what goes over the wire."""
