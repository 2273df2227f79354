"""A program for VMs that writes a log: each line synced before the next, and with its own checksum."""

from __future__ import annotations

# A piece of a shell script: makes `writer.py`, which appends to `log` and says in memory what is synced.
LOG_WRITER = """\
cat > writer.py <<'END'
import hashlib, os, time
fd = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
n = 0
while True:
    line = b"%d %s\\n" % (n, hashlib.md5(b"%d" % n).hexdigest().encode())
    os.write(fd, line)
    os.fdatasync(fd)
    with open("/dev/shm/acked.new", "w") as file:
        file.write(str(n))
    os.rename("/dev/shm/acked.new", "/dev/shm/acked")
    n += 1
    time.sleep(0.02)
END"""
