// A plugin that looks at nothing but the headers of a request, and does nothing: what a module costs by itself.
package main

import (
	"github.com/higress-group/proxy-wasm-go-sdk/proxywasm/types"
	"github.com/higress-group/wasm-go/pkg/wrapper"
)

type config struct{}

func main() {}

func init() {
	wrapper.SetCtx("headers", wrapper.ProcessRequestHeaders(func(wrapper.HttpContext, config) types.Action {
		return types.ActionContinue
	}))
}
