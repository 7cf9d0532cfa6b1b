#!/bin/sh
# A CGI script behind fcgiwrap: echoes frames, notes events, and fails when it is told to.
echo "$LONGWIRE_EVENT $SESSIONID $LONGWIRE_SEQ" >>"$NOTES"
if [ "$LONGWIRE_EVENT" != message ]; then
    # fcgiwrap turns an answer without headers into a 502.
    printf 'Status: 200\n\n'
    exit
fi
# Frames may have any bytes, but a shell variable can hold neither a NUL nor a trailing newline.
frame=$(mktemp)
trap 'rm -f "$frame"' EXIT
cat >"$frame"
if printf die | cmp -s - "$frame"; then
    exit 1
elif printf fail | cmp -s - "$frame"; then
    echo "told to fail" >&2
    printf 'Status: 500\n\nnobody sees this'
else
    printf 'Content-Length: %s\n\n' "$CONTENT_LENGTH"
    cat "$frame"
fi
