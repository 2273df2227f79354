"""The page of the first VM: says which VM answers and since when this very process runs.

It runs inside the VM, not here. A clone of the VM shows another name and the same start time: the
process was not started again, it was copied while it ran.
"""

import html
import http.server
import socket
import time

STARTED = time.strftime("%H:%M:%S UTC", time.gmtime())
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{name}</title>
<style>body{{font:18px/1.5 system-ui;max-width:34em;margin:15vh auto;padding:0 1em}}
@media(prefers-color-scheme:dark){{body{{background:#111;color:#ddd}}}}</style>
<h1>{name}</h1>
<p>This page comes from a VM of your own cloud. Its server process started at {started} and has
answered {count} requests.</p>
<p>A live clone shows its own name here, with the same start time.</p></html>
"""


class Page(http.server.BaseHTTPRequestHandler):
    """Answers every GET with the page."""

    count = 0

    def do_GET(self) -> None:
        """One page, whatever the path."""
        Page.count += 1
        name = html.escape(socket.gethostname())
        body = PAGE.format(name=name, started=STARTED, count=Page.count).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


http.server.ThreadingHTTPServer(("", 8000), Page).serve_forever()
