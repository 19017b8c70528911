package main

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"onceupon/ggml"
	"onceupon/trainer/fault"
)

func inspectCommand() *cli.Command {
	return &cli.Command{
		Name:      "inspect",
		Usage:     "metadata and tensors of a GGUF or safetensors file",
		ArgsUsage: "FILE",
		Flags:     commonFlags(),
		Action:    inspect,
	}
}

// inspected is what a file holds.
type inspected struct {
	format   string
	metadata map[string]any
	tensors  []inspectedTensor
}

type inspectedTensor struct {
	Name  string `json:"name"`
	Type  string `json:"type"`
	Shape []int  `json:"shape"` // row-major
	Bytes uint64 `json:"bytes"`
}

func inspect(c *cli.Context) error {
	if c.NArg() != 1 {
		return fault.New(fault.Usage, "inspect: give one file, not %d arguments", c.NArg())
	}
	path := c.Args().First()
	look := inspectGGUF
	switch {
	case strings.HasSuffix(path, ".index.json"):
		look = func(path string) (inspected, error) { return inspectSafetensors(path, ggml.OpenSafetensorsIndex) }
	case strings.HasSuffix(path, ".safetensors"), startsLikeSafetensors(path):
		look = func(path string) (inspected, error) { return inspectSafetensors(path, ggml.OpenSafetensors) }
	}
	found, err := look(path)
	if err != nil {
		return err
	}
	if !c.Bool("json") {
		found.print(c.App.Writer)
	}
	for key, value := range found.metadata {
		found.metadata[key] = sayable(value)
	}
	return reporter(c).Emit(map[string]any{"event": "result", "command": "inspect", "file": path, "format": found.format,
		"metadata": found.metadata, "tensors": found.tensors})
}

// startsLikeSafetensors looks at a file whose name does not say what it is: a
// GGUF begins with its name, the header of safetensors at byte 8 with a brace.
func startsLikeSafetensors(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false // whoever opens it next says why
	}
	defer f.Close()
	var head [9]byte
	_, err = io.ReadFull(f, head[:])
	return err == nil && !bytes.HasPrefix(head[:], []byte("GGUF")) && head[8] == '{'
}

func inspectSafetensors(path string, open func(string) (*ggml.Safetensors, error)) (inspected, error) {
	f, err := open(path)
	if err != nil {
		return inspected{}, err
	}
	defer f.Close()
	out := inspected{format: "safetensors", metadata: map[string]any{}, tensors: []inspectedTensor{}}
	for key, value := range f.Metadata {
		out.metadata[key] = value
	}
	for _, t := range f.Tensors {
		out.tensors = append(out.tensors, inspectedTensor{t.Name, t.Type, t.Shape, uint64(t.Bytes())})
	}
	return out, nil
}

func inspectGGUF(path string) (inspected, error) {
	f, err := ggml.Open(path)
	if err != nil {
		return inspected{}, err
	}
	defer f.Close()
	out := inspected{format: fmt.Sprintf("GGUF %d", f.Version), metadata: f.Metadata(), tensors: []inspectedTensor{}}
	for _, t := range f.Tensors {
		shape := make([]int, 0, len(t.Dims))
		for _, d := range slices.Backward(t.Dims) {
			shape = append(shape, int(d))
		}
		out.tensors = append(out.tensors, inspectedTensor{t.Name, t.Type.String(), shape, t.Size})
	}
	return out, nil
}

// print is for people: one line each.
func (i inspected) print(to io.Writer) {
	for _, key := range slices.Sorted(maps.Keys(i.metadata)) {
		fmt.Fprintf(to, "%-44s %s\n", plain(key), short(i.metadata[key]))
	}
	numbers, bytes := 0, uint64(0)
	for _, t := range i.tensors {
		fmt.Fprintf(to, "%-44s %-5s %-16s %d bytes\n", plain(t.Name), t.Type, fmt.Sprint(t.Shape), t.Bytes)
		n := 1
		for _, d := range t.Shape {
			n *= d
		}
		numbers += n
		bytes += t.Bytes
	}
	fmt.Fprintf(to, "%s: %d tensors, %d numbers in %d bytes\n", i.format, len(i.tensors), numbers, bytes)
}

// plain is a name as it is, or quoted when a terminal would not show it so.
func plain(name string) string {
	if quoted := strconv.Quote(name); len(quoted) != len(name)+2 {
		return fmt.Sprintf("%.120s", quoted)
	}
	return name
}

// short is a value on one line; of long arrays the length.
func short(v any) string {
	if s, ok := v.(string); ok {
		return fmt.Sprintf("%.80q", s)
	}
	if a := reflect.ValueOf(v); a.Kind() == reflect.Slice {
		kind := a.Type().Elem().String()
		if kind == "interface {}" {
			kind = "array"
		}
		if a.Len() > 8 || kind == "array" || kind == "string" {
			return fmt.Sprintf("%d of %s", a.Len(), kind)
		}
	}
	return fmt.Sprint(v)
}

// sayable is a value that JSON can say: bytes as numbers, what is no number by
// its name.
func sayable(v any) any {
	a := reflect.ValueOf(v)
	switch {
	case a.Kind() == reflect.Slice:
		all := make([]any, a.Len())
		for i := range all {
			all[i] = sayable(a.Index(i).Interface())
		}
		return all
	case a.CanFloat() && (math.IsNaN(a.Float()) || math.IsInf(a.Float(), 0)):
		return fmt.Sprint(v)
	}
	return v
}
