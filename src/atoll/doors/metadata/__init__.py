"""What VMs ask about themselves: `http://metadata.int`. Blind to the other doors."""
