// A registry for images on a free port of 127.0.0.1, printed once it listens. With USER:PASSWORD as its argument it
// wants them (HTTP basic) from everybody. What is pushed is gone with the process.
package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"

	"github.com/google/go-containerregistry/pkg/registry"
)

func main() {
	handler := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	if len(os.Args) > 1 {
		user, password, _ := strings.Cut(os.Args[1], ":")
		handler = guarded(handler, user, password)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(listener.Addr())
	log.Fatal(http.Serve(listener, handler))
}

func guarded(inner http.Handler, user, password string) http.Handler {
	return http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
		gotUser, gotPassword, ok := request.BasicAuth()
		if !ok || gotUser != user || gotPassword != password {
			writer.Header().Set("WWW-Authenticate", `Basic realm="registry"`)
			writer.WriteHeader(http.StatusUnauthorized)
			return
		}
		inner.ServeHTTP(writer, request)
	})
}
