// Command gen writes ../gjson.json and ../sjson.json: what gjson and sjson themselves answer to the cases below.
// Run it in this directory: go run .
package main

import (
	"encoding/json"
	"math"
	"os"
	"strings"

	"github.com/tidwall/gjson"
	"github.com/tidwall/sjson"
)

// group is one text and the paths asked of it.
type group struct {
	json  string
	paths []string
}

// readGroup is what is kept of a group: a text and the answers to its paths.
type readGroup struct {
	JSON    string `json:"json"`
	Answers []read `json:"answers"`
}

type read struct {
	Path   string `json:"path"`
	Exists bool   `json:"exists"`
	Kind   string `json:"kind,omitempty"`
	Raw    string `json:"raw,omitempty"`
	// Result.String(), unless that is Raw.
	Text  *string `json:"text,omitempty"`
	Int   int64   `json:"int,omitempty"`
	Float float64 `json:"float,omitempty"`
	Bool  bool    `json:"bool,omitempty"`
	// Elements of gjson's Array().
	Array []string `json:"array,omitempty"`
}

type write struct {
	JSON  string `json:"json"`
	Path  string `json:"path"`
	Op    string `json:"op"`
	Value string `json:"value,omitempty"`
	Out   string `json:"out"`
	Error bool   `json:"error,omitempty"`
}

func main() {
	var reads []readGroup
	for _, group := range readGroups() {
		answers := readGroup{JSON: group.json}
		for _, path := range group.paths {
			answers.Answers = append(answers.Answers, ask(group.json, path))
		}
		reads = append(reads, answers)
	}
	save("../gjson.json", reads)

	var writes []write
	for _, group := range writeGroups() {
		for _, path := range group.paths {
			for _, value := range []string{`"v"`, `{"n":1.0}`} {
				out, err := sjson.SetRaw(group.json, path, value)
				writes = append(writes, write{group.json, path, "raw", value, out, err != nil})
			}
			out, err := sjson.Delete(group.json, path)
			writes = append(writes, write{group.json, path, "delete", "", out, err != nil})
		}
	}
	for _, text := range []string{"", "plain", "é \"q\" \n", "a<b>&c", "\u2028"} {
		out, err := sjson.Set(`{"a":1}`, "b", text)
		writes = append(writes, write{`{"a":1}`, "b", "string", text, out, err != nil})
	}
	save("../sjson.json", writes)
}

func ask(text, path string) read {
	result := gjson.Get(text, path)
	answer := read{Path: path, Exists: result.Exists()}
	if !answer.Exists {
		return answer
	}
	answer.Kind = result.Type.String()
	answer.Raw = result.Raw
	if text := result.String(); text != result.Raw {
		answer.Text = &text
	}
	answer.Int = result.Int()
	if number := result.Float(); !math.IsInf(number, 0) && !math.IsNaN(number) {
		answer.Float = number
	}
	answer.Bool = result.Bool()
	if result.Type == gjson.JSON {
		for _, element := range result.Array() {
			answer.Array = append(answer.Array, element.Raw)
		}
	}
	return answer
}

// save writes one element a line, so that a change shows as the lines it touches.
func save[T any](name string, elements []T) {
	var out strings.Builder
	out.WriteString("[\n")
	for index, element := range elements {
		if index > 0 {
			out.WriteString(",\n")
		}
		if group, ok := any(element).(readGroup); ok {
			out.WriteString(`{"json":` + line(group.JSON) + ",\"answers\":[\n")
			for index, answer := range group.Answers {
				if index > 0 {
					out.WriteString(",\n")
				}
				out.WriteString(" " + line(answer))
			}
			out.WriteString("\n]}")
			continue
		}
		out.WriteString(line(element))
	}
	out.WriteString("\n]\n")
	if err := os.WriteFile(name, []byte(out.String()), 0o644); err != nil {
		panic(err)
	}
}

func line(value any) string {
	var out strings.Builder
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		panic(err)
	}
	return strings.TrimSuffix(out.String(), "\n")
}
