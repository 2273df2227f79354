"""The web server that tests put into a VM."""

from __future__ import annotations

from framework.atoll import Atoll

# A page, its request's headers as JSON, and a WebSocket that answers every text.
SERVER = r"""
import base64, hashlib, http.server, json, socket

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.headers.get("upgrade", "").lower() == "websocket":
            return self.websocket()
        is_page = self.path == "/" or self.path.startswith("/deep")
        title = f"<title>{socket.gethostname()}</title><h1>{self.path}</h1>"
        body = title.encode() if is_page else json.dumps(self.headers.items()).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html" if is_page else "application/json")
        self.send_header("Set-Cookie", "own=kept; Path=/")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def websocket(self):
        key = self.headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", accept)
        self.end_headers()
        self.close_connection = True
        while head := self.rfile.read(2):
            size = head[1] & 127
            if size == 126:
                size = int.from_bytes(self.rfile.read(2), "big")
            mask = self.rfile.read(4)
            text = bytes(b ^ mask[i % 4] for i, b in enumerate(self.rfile.read(size)))
            if head[0] & 15 == 8:
                return
            said = b"echo " + text
            length = bytes([len(said)]) if len(said) < 126 else b"\x7e" + len(said).to_bytes(2, "big")
            self.wfile.write(b"\x81" + length + said)

http.server.ThreadingHTTPServer(("", 8000), Handler).serve_forever()
"""


async def serve(atoll: Atoll, vm: str) -> None:
    """Start it in a VM, on port 8000, and wait until it answers."""
    await atoll.ssh("cat > server.py", user=vm, stdin=SERVER.encode())
    await atoll.ssh("systemd-run --user --unit server python3 server.py", user=vm)
    await serves(atoll, vm)


async def serves(atoll: Atoll, vm: str) -> None:
    """Wait until something in a VM answers on port 8000."""
    await atoll.ssh(
        "for _ in $(seq 200); do curl -s localhost:8000 && exit; sleep 0.2; done; exit 1", user=vm
    )
