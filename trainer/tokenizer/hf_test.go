package tokenizer

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"onceupon/trainer/xtest"
)

// root returns the repository's root, the nearest folder above with a go.mod.
func root(t testing.TB) string {
	t.Helper()
	dir, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	for !fileExists(filepath.Join(dir, "go.mod")) {
		dir = filepath.Dir(dir)
	}
	return dir
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// tales returns up to size bytes of the public-domain fairy tales that lie
// beside the repository, cut at a document.
func tales(t testing.TB, size int) string {
	t.Helper()
	path := filepath.Join(root(t), "..", "shared", "data", "corpus", "fairytales_small.txt.zst")
	if _, err := os.Stat(path); err != nil {
		t.Skip("no corpus beside the repository: ", err)
	}
	data := xtest.ReadZstd(t, path)
	text := string(data[:min(size, len(data))])
	if end := strings.LastIndex(text, "\n\n"); end > 0 {
		text = text[:end]
	}
	return text
}

// python runs testdata/hf_parity.py and returns what it prints.
func python(t testing.TB, args ...string) []byte {
	t.Helper()
	interpreter := os.Getenv("ONCEUPON_PYTHON")
	if interpreter == "" {
		interpreter = filepath.Join(root(t), "build", "venv", "bin", "python")
	}
	if err := exec.Command(interpreter, "-c", "import tokenizers").Run(); err != nil {
		t.Skipf("no Hugging Face tokenizers for %s (set ONCEUPON_PYTHON): %v", interpreter, err)
	}
	cmd := exec.Command(interpreter, append([]string{"testdata/hf_parity.py"}, args...)...)
	cmd.Env = append(os.Environ(), "TOKENIZERS_PARALLELISM=false")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("hf_parity.py %s: %v\n%s", args[0], err, stderr.String())
	}
	return out
}

func writeFile(t testing.TB, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func asJSON(t testing.TB, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// The same megabyte and settings give the same vocabulary and merges, and the
// file that we write gives the same ids there and here.
func TestHuggingFace(t *testing.T) {
	const size = 8000
	text := tales(t, 1<<20)
	theirsPath := filepath.Join(t.TempDir(), "theirs.json")
	python(t, "train", writeFile(t, "text.txt", []byte(text)), strconv.Itoa(size), theirsPath)
	theirs, err := Load(theirsPath)
	if err != nil {
		t.Fatal(err)
	}
	docs := strings.Split(text, "\n\n")
	ours, err := Train(context.Background(), slices.Values(docs), TrainOptions{VocabSize: size, MinFrequency: 2})
	if err != nil {
		t.Fatal(err)
	}
	if a, b := ours.Merges(), theirs.Merges(); !slices.Equal(a, b) {
		i := 0
		for i < min(len(a), len(b)) && a[i] == b[i] {
			i++
		}
		t.Fatalf("merges differ from %d on (%d and %d): %q and %q", i, len(a), len(b), a[i:min(i+3, len(a))], b[i:min(i+3, len(b))])
	}
	if !slices.Equal(ours.Tokens(), theirs.Tokens()) {
		t.Fatal("the same merges, another vocabulary")
	}

	texts := append(slices.Clone(docs), text, "", " ", "the king</s></s> and <pad><mask", "<s> x <s>y", "naïve № ½ ☃ 狐", "'S 's  \t\n x")
	oursPath := filepath.Join(t.TempDir(), "ours.json")
	if err := ours.Save(oursPath); err != nil {
		t.Fatal(err)
	}
	var want struct {
		Plain, Special [][]int32
		Decoded        []string
	}
	if err := json.Unmarshal(python(t, "encode", oursPath, writeFile(t, "texts.json", asJSON(t, texts))), &want); err != nil {
		t.Fatal(err)
	}
	for i, s := range texts {
		if got := ours.Encode(s); !slices.Equal(got, want.Plain[i]) {
			t.Errorf("plain ids of %.40q differ: %d", s, firstDifference(got, want.Plain[i]))
		}
		special := ours.EncodeSpecial(s)
		if !slices.Equal(special, want.Special[i]) {
			t.Errorf("ids with specials of %.40q differ: %d", s, firstDifference(special, want.Special[i]))
		}
		if got := ours.Decode(special, true); got != want.Decoded[i] {
			t.Errorf("text of %.40q differs", s)
		}
	}
}

func firstDifference(a, b []int32) int {
	i := 0
	for i < min(len(a), len(b)) && a[i] == b[i] {
		i++
	}
	return i
}

// unicode15 holds the letters, digits and signs that Unicode 15 added: Go knows
// them, the regular expressions of Hugging Face's library do not yet.
var unicode15 = &unicode.RangeTable{
	R32: []unicode.Range32{
		{0x1123F, 0x11240, 1}, {0x11F00, 0x11F59, 1}, {0x1342F, 0x13446, 1}, {0x1B132, 0x1B155, 1},
		{0x1D2C0, 0x1D2D3, 1}, {0x1DF25, 0x1DF2A, 1}, {0x1E030, 0x1E06D, 1}, {0x1E4D0, 0x1E4F9, 1},
		{0x2B739, 0x2B739, 1}, {0x31350, 0x323AF, 1},
	},
}

// Every character beside letters, digits, signs and spaces is split as there.
func TestHuggingFaceSplit(t *testing.T) {
	var texts []string
	for r := rune(1); r <= unicode.MaxRune; r++ {
		if utf8.ValidRune(r) && unicode.In(r, unicode.L, unicode.N, unicode.White_Space, unicode.P, unicode.S, unicode.M) && !unicode.Is(unicode15, r) {
			c := string(r)
			texts = append(texts, "a"+c+"1  "+c)
		}
	}
	var want [][][2]int // begin and end of each word in characters
	if err := json.Unmarshal(python(t, "split", writeFile(t, "texts.json", asJSON(t, texts))), &want); err != nil {
		t.Fatal(err)
	}
	for n, s := range texts {
		var ends, wantEnds []int
		for _, w := range want[n] {
			wantEnds = append(wantEnds, w[1])
		}
		for i := 0; i < len(s); {
			i = nextWord(s, i)
			ends = append(ends, utf8.RuneCountInString(s[:i]))
		}
		if !slices.Equal(ends, wantEnds) {
			t.Errorf("%+q is cut at %d, there at %d", s, ends, wantEnds)
		}
	}
	if len(texts) < 100_000 {
		t.Errorf("only %d characters were compared", len(texts))
	}
}
