package run

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"onceupon/trainer/checkpoint"
	"onceupon/trainer/fault"
)

// The words of a student are those of the checkpoint that its file is part of,
// if that was only pretrained.
func TestWordsRead(t *testing.T) {
	write := func(name string, state any) string {
		t.Helper()
		path := filepath.Join(t.TempDir(), name)
		raw, err := json.Marshal(state)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256([]byte("weights"))
		header, err := json.Marshal(checkpoint.Header{Version: checkpoint.FormatVersion, Files: map[string]string{name: hex.EncodeToString(sum[:])}, State: raw})
		if err != nil {
			t.Fatal(err)
		}
		for file, text := range map[string][]byte{path: []byte("weights"), filepath.Join(filepath.Dir(path), "state.json"): header} {
			if err := os.WriteFile(file, text, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		return path
	}
	pretrained := State{Phase: phasePretrain}
	pretrained.Pretrain.Words = 1234
	taught, given := pretrained, pretrained
	taught.Phase, given.WordsUnknown = phaseInteract, true
	for _, c := range []struct {
		path  string
		known bool
	}{
		{write("student.gguf", pretrained), true}, {write("student.gguf", taught), false}, {write("student.gguf", given), false},
		{write("student.gguf", map[string]string{"imported": "hf"}), false}, {write("export.gguf", pretrained), false}, {filepath.Join(t.TempDir(), "student.gguf"), false},
	} {
		words, known, err := wordsRead(c.path)
		if err != nil || known != c.known || known && words != 1234 {
			t.Errorf("%s: %d, %v, %v", c.path, words, known, err)
		}
	}
	changed := write("student.gguf", pretrained)
	if err := os.WriteFile(changed, []byte("others"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := wordsRead(changed); fault.Code(err) != int(fault.Damaged) {
		t.Errorf("a file that is not its checkpoint's: %v", err)
	}
}
