"""What is asked of DNS servers, and written into them. The only package that imports dnspython."""
