// A responder on Go's net/http/fcgi: echoes frames and notes events.
//
//	echo SOCKET
//
// One goroutine per request; connections are kept open.
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/fcgi"
	"os"
	"strconv"
)

func main() {
	socket, err := net.Listen("unix", os.Args[1])
	if err != nil {
		panic(err)
	}
	panic(fcgi.Serve(socket, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		env := fcgi.ProcessEnv(r)
		notes, err := os.OpenFile(env["NOTES"], os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			panic(err)
		}
		// The app's param_prefix turns SESSIONID into a header.
		fmt.Fprintf(notes, "%s %s %s\n", env["LONGWIRE_EVENT"], r.Header.Get("Sessionid"), env["LONGWIRE_SEQ"])
		notes.Close()
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(err)
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		w.Write(body)
	})))
}
