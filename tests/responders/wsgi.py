"""A WSGI application behind uWSGI: echoes frames and notes events. uWSGI closes the connection after each answer."""


def application(environ, start_response):
    with open(environ["NOTES"], "a") as notes:
        notes.write(f"{environ['LONGWIRE_EVENT']} {environ['SESSIONID']} {environ['LONGWIRE_SEQ']}\n")
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
