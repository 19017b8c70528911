package llama

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"onceupon/trainer/fault"
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

// A library is opened when it is a pinned one, or one that its own folder
// vouches for, or whatever it is when the user gave the folder.
func TestCheckPin(t *testing.T) {
	path := filepath.Join(t.TempDir(), "libllama.so")
	if err := checkPin(path, true); fault.Code(err) != int(fault.Capability) || !strings.Contains(err.Error(), "no such library") {
		t.Errorf("absent: %v", err)
	}
	write := func(path, text string) {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(path, "abc")
	const abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
	sums := filepath.Join(filepath.Dir(path), "SHA256SUMS")
	for text, ok := range map[string]bool{"": false, abc + "  libllama.so\n": true, abc + "  libggml.so\n": false, "0" + abc[1:] + "  libllama.so\n": false, abc: false} {
		write(sums, text)
		if err := checkPin(path, false); (err == nil) != ok || !ok && !strings.Contains(err.Error(), "none of those pinned") {
			t.Errorf("%q: %v", text, err)
		}
	}
	if err := checkPin(path, true); err != nil {
		t.Error(err)
	}
}
