"""The web door: pages, their files, and terminals in the browser."""
