"""Which certificates HAProxy has: a list of files, changed while it runs."""
