package corpus

import (
	"bytes"
	"compress/gzip"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"onceupon/trainer/fault"
)

func file(t *testing.T, name string, text []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func zst(t *testing.T, text string) []byte {
	t.Helper()
	e, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return e.EncodeAll([]byte(text), nil)
}

func TestFormats(t *testing.T) {
	text := strings.Repeat("One fox ran over the long hill and far away into the dark forest where nobody had ever been before that day. ", 2)
	want := []string{strings.TrimSpace(text) + "\nSecond line.", strings.TrimSpace(text)}
	whole := want[0] + "\n\n" + want[1] + "\n"
	var gz bytes.Buffer
	w := gzip.NewWriter(&gz)
	w.Write([]byte(whole))
	w.Close()
	for name, data := range map[string][]byte{"a.txt": []byte(whole), "a.txt.zst": zst(t, whole), "a.txt.gz": gz.Bytes(), "bom.txt": []byte("\xef\xbb\xbf" + whole)} {
		c, err := Open(context.Background(), file(t, name, data))
		if err != nil {
			t.Fatal(err)
		}
		if got := slices.Collect(c.Documents()); !slices.Equal(got, want) {
			t.Errorf("%s: documents %q", name, got)
		}
		if c.Words() != len(strings.Fields(whole)) {
			t.Errorf("%s: %d words", name, c.Words())
		}
	}
}

func TestGutenbergBook(t *testing.T) {
	book := "The Project Gutenberg eBook\n\n*** START OF THE PROJECT GUTENBERG EBOOK X ***\n\nOnce upon\na time.\n\nThe second\nparagraph.\n\n\n\nCHAPTER II\n\nMore.\n*** END OF THE PROJECT GUTENBERG EBOOK X ***\nLicence\n"
	c, err := Open(context.Background(), file(t, "book.txt", []byte(book)))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"Once upon a time.\nThe second paragraph.", "CHAPTER II\nMore."}
	if got := slices.Collect(c.Documents()); !slices.Equal(got, want) {
		t.Errorf("documents %q", got)
	}
}

func TestBadFiles(t *testing.T) {
	good := zst(t, strings.Repeat("words and more words ", 5000))
	for name, c := range map[string]struct {
		path string
		want fault.Kind
	}{
		"missing":      {filepath.Join(t.TempDir(), "none.txt"), fault.Capability},
		"empty":        {file(t, "empty.txt", nil), fault.Usage},
		"blank":        {file(t, "blank.txt", []byte("\n \n")), fault.Usage},
		"binary":       {file(t, "binary.txt", []byte("ab\x00cd")), fault.Usage},
		"not UTF-8":    {file(t, "latin.txt", []byte("caf\xe9")), fault.Usage},
		"empty folder": {t.TempDir(), fault.Usage},
		"cut zst":      {file(t, "cut.zst", good[:len(good)/2]), fault.Damaged},
		"not zst":      {file(t, "not.zst", []byte("plain text")), fault.Damaged},
		"not gz":       {file(t, "not.gz", []byte("plain text")), fault.Damaged},
	} {
		_, err := Open(context.Background(), c.path)
		if fault.Code(err) != int(c.want) {
			t.Errorf("%s: %v has exit code %d, want %d", name, err, fault.Code(err), c.want)
		} else if !strings.Contains(err.Error(), c.path) {
			t.Errorf("%s: %q does not name the file", name, err)
		}
	}
}

func TestSplit(t *testing.T) {
	c := &Corpus{}
	for i := range 50 {
		c.documents = append(c.documents, strings.Repeat("x", i+1))
	}
	reading, held := c.Split(1, 0.1)
	a, b := slices.Collect(reading), slices.Collect(held)
	if len(a) != 45 || len(b) != 5 {
		t.Errorf("%d and %d documents", len(a), len(b))
	}
	for _, d := range b {
		if slices.Contains(a, d) {
			t.Errorf("%q is in both parts", d)
		}
	}
	again, _ := c.Split(1, 0.1)
	if !slices.Equal(slices.Collect(again), a) {
		t.Error("the same seed split otherwise")
	}
}
