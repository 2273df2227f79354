"""What the web page takes from npm: declared, fetched, checked, unpacked. No Node is needed."""
