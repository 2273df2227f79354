"""Sets the machine up and down: users, folders, processes, the first account, its first VM."""
