"""Atoll as an OpenID provider, over HTTP: what people see of it, and what apps ask."""
