"""Authoritative DNS for the cloud's domain: Knot answers, control writes the zone."""
