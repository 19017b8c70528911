package llama

import (
	"os"
	"path/filepath"
	"testing"

	"onceupon/ggml"
	"onceupon/trainer/fault"
)

// dataFolder is where scripts/fetch-teacher puts libllama and the teachers.
func dataFolder(t testing.TB) string {
	t.Helper()
	base := os.Getenv("XDG_DATA_HOME")
	if base == "" {
		base = filepath.Join(os.Getenv("HOME"), ".local", "share")
	}
	dir := filepath.Join(base, "onceupon")
	if _, err := os.Stat(filepath.Join(dir, "stamp")); err != nil {
		t.Skip("libllama and the teachers are not there: run `make fetch`")
	}
	return dir
}

func open(t testing.TB) (*Library, string) {
	t.Helper()
	dir := dataFolder(t)
	l, err := Open(filepath.Join(dir, "llama"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	return l, dir
}

func TestMissingLibrary(t *testing.T) {
	if _, err := openLibraries(t.TempDir(), false); fault.Code(err) != int(fault.Capability) {
		t.Errorf("an empty folder gave %v", err)
	}
}

func TestOtherHashIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "libggml-base.so"), []byte("not a library"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openLibraries(dir, false); fault.Code(err) != int(fault.Capability) {
		t.Errorf("a wrong hash gave %v", err)
	}
	if _, err := openLibraries(dir, true); fault.Code(err) != int(fault.Capability) {
		t.Errorf("a file that is no library gave %v", err)
	}
}

func TestModelsThatAreNone(t *testing.T) {
	l, dir := open(t)
	temporary := t.TempDir()
	clip := filepath.Join(temporary, "clip.gguf")
	var w ggml.Writer
	w.SetString("general.architecture", "clip")
	w.SetUint32("clip.block_count", 1)
	w.AddTensor("v.patch", []uint64{4}, func() ([]float32, error) { return make([]float32, 4), nil })
	f, err := os.Create(clip)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteTo(f); err != nil {
		t.Fatal(err)
	}
	f.Close()
	text := filepath.Join(temporary, "text.gguf")
	os.WriteFile(text, []byte("Once upon a time"), 0o600)
	short := filepath.Join(temporary, "short.gguf")
	whole, err := os.ReadFile(filepath.Join(dir, "teachers", "SmolLM2-135M-Instruct.Q4_1.gguf"))
	if err != nil {
		t.Fatal(err)
	}
	os.WriteFile(short, whole[:len(whole)/2], 0o600)
	for path, want := range map[string]fault.Kind{
		filepath.Join(temporary, "none.gguf"): fault.Capability, clip: fault.Damaged, text: fault.Damaged, short: fault.Damaged,
	} {
		if _, err := l.LoadModel(path, ""); fault.Code(err) != int(want) {
			t.Errorf("%s: %v, exit code %d, want %d", filepath.Base(path), err, fault.Code(err), want)
		}
	}
}

// A story after a shared prefix gets the logits it gets when prefix and story
// are read by one sequence of its own.
func TestSharedPrefix(t *testing.T) {
	l, dir := open(t)
	m, err := l.LoadModel(filepath.Join(dir, "teachers", "SmolLM2-135M-Instruct.Q4_1.gguf"), "")
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	prefix, err := m.Tokenize("A fox and a hare lived by the river. ", false)
	if err != nil {
		t.Fatal(err)
	}
	story, _ := m.Tokenize("One morning the hare was", false)
	c, err := m.NewContext(ContextOptions{Tokens: 256, Batch: 64, Sequences: 3, Outputs: 2, Threads: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	feed := func(tokens []int32, first int, sequence int32) []float32 {
		var all []Token
		for i, id := range tokens {
			all = append(all, Token{id, int32(first + i), sequence, i == len(tokens)-1})
		}
		if err := c.Decode(all); err != nil {
			t.Fatal(err)
		}
		logits, err := c.Logits(len(all) - 1)
		if err != nil {
			t.Fatal(err)
		}
		return append([]float32(nil), logits...)
	}
	feed(prefix, 0, 0)
	alone := feed(story, len(prefix), 0)
	if err := c.Forget(0, int32(len(prefix))); err != nil {
		t.Fatal(err)
	}
	c.Share(0, 2)
	shared := feed(story, len(prefix), 2)
	best := 0
	for i := range alone {
		if alone[i] != shared[i] {
			t.Fatalf("logit %d: %v alone, %v after the shared prefix", i, alone[i], shared[i])
		}
		if alone[i] > alone[best] {
			best = i
		}
	}
	if m.Piece(int32(best)) == "" {
		t.Error("the best token has no text")
	}
	if _, err := c.Logits(0); err == nil {
		t.Error("logits that were not asked for were given")
	}
	if err := c.Decode([]Token{{ID: -1}}); err == nil {
		t.Error("token -1 was decoded")
	}
}

// A watch sees a node's numbers and may put others in their place.
func TestWatch(t *testing.T) {
	l, dir := open(t)
	m, err := l.LoadModel(filepath.Join(dir, "teachers", "SmolLM2-135M-Instruct.Q4_1.gguf"), "")
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	first := func(w *Watch) float32 {
		t.Helper()
		c, err := m.NewContext(ContextOptions{Tokens: 32, Batch: 32, Sequences: 1, Outputs: 1, Threads: 1, Watch: w})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.Decode([]Token{{ID: 1, Logits: true}}); err != nil {
			t.Fatal(err)
		}
		z, err := c.Logits(0)
		if err != nil {
			t.Fatal(err)
		}
		return z[0]
	}
	plain, seen := first(nil), map[string]int{}
	watch := func(change bool) *Watch {
		return &Watch{Wants: func(name string) bool { return name == "result_norm" }, Sees: func(name string, values []float32) bool {
			seen[name] = len(values)
			clear(values)
			return change
		}}
	}
	if got := first(watch(false)); got != plain {
		t.Errorf("looking changed a logit from %v to %v", plain, got)
	}
	if got := first(watch(true)); got != 0 {
		t.Errorf("a norm of zeros gave the logit %v", got)
	}
	if len(seen) != 1 || seen["result_norm"] != 576 {
		t.Errorf("seen: %v", seen)
	}
}
