"""Images: recipes, the builder, and the cache of what was built."""
