//go:build large

package main

import (
	"encoding/xml"
	"html/template"
	"os"
)

// Packages that make the module as large as the largest plugins are. Nothing of it runs, which the linker cannot know.
func init() {
	if os.Getenv("LARGE_MODULE_RUNS") == "" {
		return
	}
	_ = template.Must(template.New("").Parse("")).Execute(os.Stdout, nil)
	_ = xml.Unmarshal(nil, &struct{}{})
}
