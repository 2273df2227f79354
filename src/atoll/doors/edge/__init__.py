"""The HTTPS door: what HAProxy knows, how it is told, and the certificate it shows.

HAProxy carries every byte and checks every request; Python decides the maps and never sees a VM's
traffic. Who may open what is decided in `decide`, nowhere else.
"""
