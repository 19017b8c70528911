package exchange

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"onceupon/bindings/student"
	"onceupon/trainer/checkpoint"
	"onceupon/trainer/storybook"
	"onceupon/trainer/xtest"
)

// transformers runs scripts/peers/transformers_files with the Python of
// `make test-peers`.
func transformers(t *testing.T, args ...string) {
	t.Helper()
	python := os.Getenv("ONCEUPON_PEERS_PYTHON")
	if python == "" {
		t.Skip("ONCEUPON_PEERS_PYTHON is not set: `make test-peers` installs PyTorch and transformers and sets it")
	}
	program := exec.Command(python, append([]string{filepath.Join("..", "..", "scripts", "peers", "transformers_files")}, args...)...)
	program.Env = append(os.Environ(), "HF_HUB_OFFLINE=1")
	if out, err := program.CombinedOutput(); err != nil {
		t.Fatalf("transformers_files %v: %v\n%s", args, err, out)
	}
}

// told returns what transformers_files noted: ids, and the logits of the first
// hundred.
func told(t *testing.T, dir string) (ids []int32, logits []float32) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "ids.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &ids); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(dir, "logits.bin"))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(raw); i += 4 {
		logits = append(logits, math.Float32frombits(binary.LittleEndian.Uint32(raw[i:])))
	}
	return ids, logits
}

// agree compares our logits with theirs.
func agree(t *testing.T, m *student.Model, ids []int32, theirs []float32) {
	t.Helper()
	ids = ids[:min(100, len(ids))]
	if err := m.Forward(student.Pack([][]int32{ids}), nil, student.Scores{}); err != nil {
		t.Fatal(err)
	}
	ours, err := m.Logits(0, len(ids))
	if err != nil || len(ours) != len(theirs) {
		t.Fatalf("%d logits, transformers has %d, %v", len(ours), len(theirs), err)
	}
	worst := 0.0
	for i := range ours {
		worst = max(worst, math.Abs(float64(ours[i]-theirs[i])))
	}
	t.Logf("largest difference of a logit: %.2e", worst)
	if !(worst <= 1e-4) {
		t.Errorf("logits differ by %.2e", worst)
	}
}

// running is a student that can be asked for the logits of 100 tokens.
func running(t *testing.T, from *student.Model) *student.Model {
	t.Helper()
	m, err := student.New(from.Config(), student.Options{Backend: "cpu", ISA: "auto", Threads: 2, MaxTokens: 128, MaxStories: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	if err := m.CopyWeights(from); err != nil {
		t.Fatal(err)
	}
	return m
}

// megabyte is the first MB of the fairy tales beside the repository; where
// they are not, of the storybook.
func megabyte(t *testing.T) []byte {
	t.Helper()
	path := filepath.Join("..", "..", "..", "shared", "data", "corpus", "fairytales_small.txt.zst")
	if _, err := os.Stat(path); err != nil {
		t.Logf("no real text beside the repository (%v): the storybook's takes its place", err)
		return []byte(strings.Join(slices.Collect(storybook.New(11).Documents(260_000)), "\n"))[:1<<20]
	}
	text := xtest.ReadZstd(t, path)
	text = text[:min(len(text), 1<<20)]
	for len(text) > 0 && text[len(text)-1] >= 0x80 { // no half of a character
		text = text[:len(text)-1]
	}
	return text
}

// transformers finds our logits and our ids in the folder that we export.
func TestTransformersReadOurs(t *testing.T) {
	m, tokens, path := save(t, 64)
	dir, out, text := filepath.Join(t.TempDir(), "hf"), t.TempDir(), filepath.Join(t.TempDir(), "text.txt")
	if err := WriteHF(open(t, path), dir, "card"); err != nil {
		t.Fatal(err)
	}
	tales := megabyte(t)
	if err := os.WriteFile(text, tales, 0o644); err != nil {
		t.Fatal(err)
	}
	transformers(t, "read", dir, text, out)
	ids, logits := told(t, out)
	if ours := tokens.Encode(string(tales)); !slices.Equal(ours, ids) {
		t.Errorf("%d bytes: other ids: %d of ours, %d of theirs", len(tales), len(ours), len(ids))
	}
	t.Logf("%d ids of %d bytes", len(ids), len(tales))
	agree(t, m, ids, logits)
}

// We find the logits of transformers in the folders that it writes, and it
// finds them in what we make of those.
func TestWeReadTransformers(t *testing.T) {
	_, tokens, _ := save(t, 32)
	vocabulary := filepath.Join(t.TempDir(), "tokenizer.json")
	if err := tokens.Save(vocabulary); err != nil {
		t.Fatal(err)
	}
	text := "Once upon a time, a hen sang. "
	for _, kind := range []string{"tokenizer-json", "vocab-merges", "sharded", "bare", "value-head", "half"} {
		t.Run(kind, func(t *testing.T) {
			dir := t.TempDir()
			transformers(t, "write", dir, vocabulary, kind)
			in, err := Import(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer in.Model.Close()
			ids, logits := told(t, dir)
			agree(t, running(t, in.Model), ids, logits)
			if !slices.Equal(in.Tokenizer.Encode(text), tokens.Encode(text)) {
				t.Error("another tokenizer came back")
			}

			run, back, out, story := t.TempDir(), filepath.Join(t.TempDir(), "hf"), t.TempDir(), filepath.Join(t.TempDir(), "story.txt")
			if _, err := checkpoint.Save(run, "best", checkpoint.Contents{Model: in.Model, WeightsOnly: true, Vocabulary: in.Vocabulary()}); err != nil {
				t.Fatal(err)
			}
			if err := WriteHF(open(t, filepath.Join(run, "best", "student.gguf")), back, "card"); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(story, []byte(strings.Repeat(text, 20)), 0o644); err != nil {
				t.Fatal(err)
			}
			transformers(t, "read", back, story, out)
			ids, logits = told(t, out)
			agree(t, running(t, in.Model), ids, logits)
		})
	}
}
