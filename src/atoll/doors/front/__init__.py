"""What the two doors that speak HTTP share: hosts, headers, refusals, and the server itself."""
