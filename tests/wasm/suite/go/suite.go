// The suite's plugin in Go, on Higress's SDK.
package main

import (
	"fmt"
	"net/http"
	"strconv"

	"github.com/higress-group/proxy-wasm-go-sdk/proxywasm"
	"github.com/higress-group/proxy-wasm-go-sdk/proxywasm/types"
	"github.com/higress-group/wasm-go/pkg/log"
	"github.com/higress-group/wasm-go/pkg/wrapper"
	"github.com/tidwall/gjson"
	"github.com/tidwall/resp"
)

const language = "go"

type config struct {
	mode    string
	callout wrapper.HttpClient
	redis   wrapper.RedisClient
}

func main() {}

func init() {
	wrapper.SetCtx(
		"suite",
		wrapper.ParseConfig(parse),
		wrapper.ProcessRequestHeaders(onRequestHeaders),
		wrapper.ProcessRequestBody(onRequestBody),
		wrapper.ProcessResponseHeaders(onResponseHeaders),
		wrapper.ProcessStreamingResponseBody(onResponseChunk),
	)
}

func parse(json gjson.Result, into *config) error {
	into.mode = json.Get("mode").String()
	switch into.mode {
	case "transform", "reply", "stream", "rewrite", "trap":
	case "callout":
		into.callout = wrapper.NewClusterClient(wrapper.FQDNCluster{FQDN: "callout.static", Host: "callout", Port: 80})
	case "redis":
		into.redis = wrapper.NewRedisClusterClient(wrapper.FQDNCluster{FQDN: "redis.static", Port: 6379})
		return into.redis.Init("", "", 1000)
	default:
		return fmt.Errorf("no known mode: %q", into.mode)
	}
	return nil
}

func onRequestHeaders(ctx wrapper.HttpContext, with config) types.Action {
	if with.mode != "rewrite" {
		ctx.DontReadRequestBody()
	}
	switch with.mode {
	case "transform":
		_ = proxywasm.ReplaceHttpRequestHeader("x-suite", language)
		_ = proxywasm.RemoveHttpRequestHeader("x-remove")
	case "reply":
		if has("x-deny") {
			_ = proxywasm.SendHttpResponseWithDetail(403, "suite", [][2]string{{"x-denied", "yes"}}, []byte("denied by "+language), -1)
			return types.ActionPause
		}
	case "callout":
		return callOut(with)
	case "redis":
		return count(with)
	case "rewrite":
		_ = proxywasm.RemoveHttpRequestHeader("content-length")
		return types.HeaderStopIteration
	case "trap":
		if has("x-trap") {
			// The SDK recovers from panics; running out of stack ends the module itself.
			log.Warnf("overflow of %d", overflow(1))
		}
	}
	return types.ActionContinue
}

func overflow(depth int) int {
	var room [1 << 16]byte
	room[depth%len(room)] = byte(depth)
	return overflow(depth+1) + int(room[0])
}

func has(name string) bool {
	value, err := proxywasm.GetHttpRequestHeader(name)
	return err == nil && value != ""
}

func callOut(with config) types.Action {
	err := with.callout.Get("/echo", nil, func(status int, _ http.Header, _ []byte) {
		_ = proxywasm.ReplaceHttpRequestHeader("x-callout-status", strconv.Itoa(status))
		_ = proxywasm.ResumeHttpRequest()
	}, 1000)
	if err != nil {
		log.Errorf("call-out: %v", err)
		return types.ActionContinue
	}
	return types.HeaderStopAllIterationAndWatermark
}

func count(with config) types.Action {
	err := with.redis.Incr("suite", func(reply resp.Value) {
		_ = proxywasm.ReplaceHttpRequestHeader("x-redis", strconv.Itoa(reply.Integer()))
		_ = proxywasm.ResumeHttpRequest()
	})
	if err != nil {
		log.Errorf("redis: %v", err)
		return types.ActionContinue
	}
	return types.HeaderStopAllIterationAndWatermark
}

func onRequestBody(_ wrapper.HttpContext, with config, body []byte) types.Action {
	if with.mode == "rewrite" {
		_ = proxywasm.ReplaceHttpRequestBody(append([]byte(language+":"), body...))
	}
	return types.ActionContinue
}

func onResponseHeaders(ctx wrapper.HttpContext, with config) types.Action {
	switch with.mode {
	case "transform":
		_ = proxywasm.ReplaceHttpResponseHeader("x-suite-response", "done")
	case "stream":
		_ = proxywasm.RemoveHttpResponseHeader("content-length")
		return types.ActionContinue
	}
	ctx.DontReadResponseBody()
	return types.ActionContinue
}

func onResponseChunk(_ wrapper.HttpContext, with config, chunk []byte, last bool) []byte {
	if with.mode != "stream" {
		return chunk
	}
	out := make([]byte, 0, len(chunk)+5)
	for _, letter := range chunk {
		if 'a' <= letter && letter <= 'z' {
			letter -= 32
		}
		out = append(out, letter)
	}
	if last {
		out = append(out, "[end]"...)
	}
	return out
}
