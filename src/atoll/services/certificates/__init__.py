"""Certificates from an ACME server: what is kept, how one is asked for, and when."""
