// A registry for images on a free port of 127.0.0.1: its address is the first line of its output, then each request is
// one (METHOD PATH USER, `-` for nobody). What is pushed is gone with the process.
package main

import (
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"

	"github.com/google/go-containerregistry/pkg/registry"
)

func main() {
	login := flag.String("login", "", "USER:PASSWORD that everybody must bring (HTTP basic)")
	redirect := flag.String("redirect", "", "where whoever wants a blob is sent: http://HOST:PORT")
	flag.Parse()
	handler := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	if *redirect != "" {
		handler = redirecting(handler, *redirect)
	}
	if *login != "" {
		user, password, _ := strings.Cut(*login, ":")
		handler = guarded(handler, user, password)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(listener.Addr())
	log.Fatal(http.Serve(listener, told(handler)))
}

func told(inner http.Handler) http.Handler {
	return http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
		user, _, ok := request.BasicAuth()
		if !ok {
			user = "-"
		}
		fmt.Println(request.Method, request.URL.Path, user)
		inner.ServeHTTP(writer, request)
	})
}

func redirecting(inner http.Handler, target string) http.Handler {
	return http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
		if request.Method == http.MethodGet && strings.Contains(request.URL.Path, "/blobs/") {
			http.Redirect(writer, request, target+request.URL.Path, http.StatusTemporaryRedirect)
			return
		}
		inner.ServeHTTP(writer, request)
	})
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
