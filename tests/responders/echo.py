"""A responder on flup: echoes frames, notes events, shows headers as Go would, and fails when it is told to.

    python echo.py SOCKET [multiplexed]
"""

import os
import sys

from flup.server.fcgi import WSGIServer


def go_headers(environ):
    """What net/http/fcgi makes of params: HTTP_* become headers with canonical names (net/http/cgi.RequestFromMap)."""
    for name, value in sorted(environ.items()):
        if name.startswith("HTTP_"):
            words = name[len("HTTP_"):].split("_")
            yield "-".join(word.capitalize() for word in words) + ": " + value


def note(environ):
    session = environ.get("SESSIONID") or environ.get("HTTP_SESSIONID", "")
    line = f"{environ['LONGWIRE_EVENT']} {session} {environ['LONGWIRE_SEQ']}\n"
    file = os.open(environ["NOTES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


def app(environ, start_response):
    body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    note(environ)
    headers = []
    if environ["LONGWIRE_EVENT"] != "message":
        # Greet with the headers, if the app's param_prefix makes some.
        body = "\n".join(go_headers(environ)).encode()
    elif body == b"die":
        raise RuntimeError("told to die")
    elif body == b"fail":
        environ["wsgi.errors"].write("told to fail\n")
        start_response("500 Internal Server Error", [])
        return [b"nobody sees this"]
    elif body == b"headers":
        needed = ["REQUEST_METHOD", "REQUEST_URI", "SERVER_PROTOCOL", "CONTENT_LENGTH"]
        lines = [f"{name} {environ[name]}" for name in needed]
        body = "\n".join(lines + list(go_headers(environ))).encode()
    else:
        headers = [("Content-Length", str(len(body)))]
    start_response("200 OK", headers)
    # flup announces the length of a single piece, and an announced empty reply would count as a reply.
    return [body] if body or headers else []


if __name__ == "__main__":
    WSGIServer(app, bindAddress=sys.argv[1], multiplexed=sys.argv[2:] == ["multiplexed"]).run()
