package trace

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Traces of other sizes, recorded by PyTorch on the spot: an odd width, one
// layer, many heads.
func TestAnySizeIsPyTorchs(t *testing.T) {
	python := os.Getenv("ONCEUPON_PEERS_PYTHON")
	if python == "" {
		t.Skip("ONCEUPON_PEERS_PYTHON is not set: `make test-peers` installs PyTorch and transformers and sets it")
	}
	for _, size := range []string{
		"--layers 3 --heads 5 --width 40",
		"--layers 1 --heads 1 --width 7 --vocab 30 --length 20",
		"--layers 2 --heads 12 --width 384 --vocab 500 --length 48",
	} {
		dir := filepath.Join(t.TempDir(), "trace")
		command := exec.Command(python, append([]string{"../../scripts/record-gpt2", dir}, strings.Fields(size)...)...)
		if output, err := command.CombinedOutput(); err != nil {
			t.Fatalf("record-gpt2 %s: %v\n%s", size, err, output)
		}
		for _, o := range variants {
			checks, err := GPT2(dir, o)
			if err != nil {
				t.Fatal(err)
			}
			judge(t, o, checks, 70)
		}
	}
}
