package bench

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"onceupon/bindings/llama"
	"onceupon/trainer/fault"
	"onceupon/trainer/judge"
	"onceupon/trainer/synthetic"
)

// Synthetic makes a teacher of a named shape with random weights in a folder,
// with its first layers only when layers is not 0, and the tokens of a model
// that is there (a name or a path). A file that is already there is taken.
func Synthetic(ctx context.Context, folder, name, kind string, layers int, vocabulary string, say func(string, ...any)) (string, error) {
	shape, ok := synthetic.Shapes[name]
	if !ok {
		return "", fault.New(fault.Usage, "--synthetic %q: the shapes are %s", name, strings.Join(slices.Sorted(maps.Keys(synthetic.Shapes)), ", "))
	}
	most, ok := synthetic.Types[kind]
	if !ok {
		return "", fault.New(fault.Usage, "--type %q: the types are %s", kind, strings.Join(slices.Sorted(maps.Keys(synthetic.Types)), ", "))
	}
	if layers < 0 || layers > shape.Layers {
		return "", fault.New(fault.Usage, "--layers %d: %s has %d", layers, name, shape.Layers)
	}
	whole := shape.Layers
	if layers > 0 {
		shape.Layers = layers
	}
	from, _, err := judge.FindModel(vocabulary)
	if err != nil {
		return "", err
	}
	path := filepath.Join(folder, fmt.Sprintf("%s-%s-%d-layers.gguf", name, kind, shape.Layers))
	if h, err := llama.ReadHeader(path); err == nil && h.Vocabulary == shape.Vocabulary && h.Layers == shape.Layers && h.Width == shape.Width {
		say("synthetic %s, %s: %s is there", name, kind, path)
		return path, nil
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return "", fault.Wrap(fault.Failed, err)
	}
	if err := synthetic.Write(ctx, path, shape, most, from, 1); err != nil {
		return "", err
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	say("synthetic %s, %s, %d of %d layers: %.2f GiB, random weights, tokens of %s", name, kind, shape.Layers, whole, float64(info.Size())/(1<<30), filepath.Base(from))
	return path, nil
}

// AtWave names results by the stories of one decode.
func AtWave(results []Result, wave int) []Result {
	for i := range results {
		results[i].Shape += fmt.Sprintf("_wave_%d", wave)
	}
	return results
}
