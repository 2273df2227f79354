"""What a browser calls itself, in a few words: so that people know their own in a list. Pure.

A hint and no more: a browser says what it likes.
"""

from __future__ import annotations

# The first that is in the text; most browsers also name those that came before them.
_BROWSERS = (
    ("Edg", "Edge"),
    ("OPR/", "Opera"),
    ("SamsungBrowser/", "Samsung Internet"),
    ("Firefox/", "Firefox"),
    ("FxiOS/", "Firefox"),
    ("CriOS/", "Chrome"),
    ("Chrome/", "Chrome"),
    ("Safari/", "Safari"),
)
_SYSTEMS = (
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Android", "Android"),
    ("Windows", "Windows"),
    ("CrOS", "ChromeOS"),
    ("Mac OS X", "macOS"),
    ("Linux", "Linux"),
)
_CHARS = 40


def browser_of(user_agent: str) -> str:
    """`Firefox on Linux`; the beginning of what it says when that names neither."""
    browser = next((name for mark, name in _BROWSERS if mark in user_agent), "")
    system = next((name for mark, name in _SYSTEMS if mark in user_agent), "")
    named = " on ".join(filter(None, (browser, system)))
    return named or " ".join(user_agent[:_CHARS].split()) or "unknown"
