"""Keeps engine, control and HAProxy running on machines without systemd."""
