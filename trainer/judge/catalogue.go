package judge

import (
	"onceupon/bindings/llama"
	"onceupon/trainer/fault"
)

// Shape is what a model of a name must be; 0 is not checked.
type Shape struct {
	Architecture                                                              string
	Layers, Width, Heads, KVHeads, FeedForward, Vocabulary, KeyWidth, Context int
}

// Llama31 is Llama 3.1 8B (its config.json).
var Llama31 = Shape{Architecture: "llama", Layers: 32, Width: 4096, Heads: 32, KVHeads: 8, FeedForward: 14336, Vocabulary: 128256, KeyWidth: 128, Context: 131072}

// Matches compares a header with the shape.
func (s Shape) Matches(h llama.Header) error {
	if s.Architecture != "" && s.Architecture != h.Architecture {
		return fault.New(fault.Damaged, "%s: architecture %q, not %q: it is another model than its name says; delete it and pull it again", h.Path, h.Architecture, s.Architecture)
	}
	for _, f := range []struct {
		name      string
		got, want int
	}{{"layers", h.Layers, s.Layers}, {"width", h.Width, s.Width}, {"heads", h.Heads, s.Heads}, {"key-value heads", h.KVHeads, s.KVHeads},
		{"feed-forward width", h.FeedForward, s.FeedForward}, {"vocabulary", h.Vocabulary, s.Vocabulary}} {
		if f.want != 0 && f.got != f.want {
			return fault.New(fault.Damaged, "%s: %s %d, not %d: it is another model than its name says; delete it and pull it again", h.Path, f.name, f.got, f.want)
		}
	}
	return nil
}

// Known is a teacher with a name.
type Known struct {
	Name    string
	File    string
	Rubric  string // "" = by the chat template
	Licence string
	Shape   Shape
	// Repository and file at the hub; "" comes from `make fetch`. No hash is
	// known here: the hub states the file's (package fetch), or --sha256 does.
	Repository string
	Gigabytes  float64 // about, for people
}

const llama31Licence = "Llama 3.1 Community License Agreement and Acceptable Use Policy of Meta (\"Built with Llama\"; llama.com/llama3_1/license)"

const llama31Repository = "bartowski/Meta-Llama-3.1-8B-Instruct-GGUF"

// catalogue are the teachers with names. The two small ones read best in plain
// text with worked examples (docs/teachers.md).
var catalogue = []Known{
	{Name: "gemma-270m", File: "gemma-3-270m-q4_k_m.gguf", Rubric: "plain", Licence: "Gemma Terms of Use", Gigabytes: 0.25},
	{Name: "smollm2-135m", File: "SmolLM2-135M-Instruct.Q4_1.gguf", Rubric: "plain", Licence: "Apache-2.0", Gigabytes: 0.10},
	{Name: "llama-3.1-8b-q4_k_m", File: "Meta-Llama-3.1-8B-Instruct-Q4_K_M.gguf", Licence: llama31Licence, Shape: Llama31, Repository: llama31Repository, Gigabytes: 4.9},
	{Name: "llama-3.1-8b-q8_0", File: "Meta-Llama-3.1-8B-Instruct-Q8_0.gguf", Licence: llama31Licence, Shape: Llama31, Repository: llama31Repository, Gigabytes: 8.5},
}

// Catalogue lists the teachers with names.
func Catalogue() []Known { return append([]Known(nil), catalogue...) }

// Named finds a teacher by its name.
func Named(name string) (Known, bool) {
	for _, k := range catalogue {
		if k.Name == name {
			return k, true
		}
	}
	return Known{}, false
}

// Names are those of the catalogue.
func Names() []string {
	var all []string
	for _, k := range catalogue {
		all = append(all, k.Name)
	}
	return all
}
