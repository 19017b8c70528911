package llama

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What the scripts fetch is what this package opens.
func TestPinsAreThoseOfTheScripts(t *testing.T) {
	files, err := filepath.Glob("../../third_party/llama*/SHA256SUMS")
	if err != nil {
		t.Fatal(err)
	}
	more, err := filepath.Glob("../../third_party/llama-cuda/*/SHA256SUMS")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, path := range append(files, more...) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			sum, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
			seen[name+sum] = true
			if !slices.Contains(pins[name], sum) {
				t.Errorf("%s: %s has another sha256 in pins.go", path, name)
			}
		}
	}
	for name, sums := range pins {
		for _, sum := range sums {
			if !seen[name+sum] {
				t.Errorf("pins.go: %s %.12s stands in no SHA256SUMS", name, sum)
			}
		}
	}
}
