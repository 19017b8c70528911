// Package corpus owns the reading of text: files and folders, compressed or
// not, split into documents, Project Gutenberg's headers removed.
package corpus

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/klauspost/compress/zstd"

	"onceupon/trainer/fault"
)

// Corpus is text in documents.
type Corpus struct {
	documents []string
	words     int
}

// extensions that a folder is searched for.
var extensions = []string{".txt", ".zst", ".gz"}

// Open reads a text file (.txt, .zst, .gz, or any other name) or every such file
// of a folder, in order of their paths. An empty, binary or non-UTF-8 file is
// an error that names it; a damaged archive is fault.Damaged.
func Open(ctx context.Context, path string) (*Corpus, error) {
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fault.New(fault.Capability, "corpus %s: no such file or folder: give the path of a text", path)
	}
	if err != nil {
		return nil, fault.New(fault.Capability, "corpus: %w", err)
	}
	paths := []string{path}
	if info.IsDir() {
		if paths, err = textFiles(path); err != nil {
			return nil, err
		}
	}
	c := &Corpus{}
	for _, p := range paths {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		text, err := Read(p)
		if err != nil {
			return nil, fmt.Errorf("corpus %w", err)
		}
		for _, d := range split(stripGutenberg(text)) {
			c.words += CountWords(d)
			c.documents = append(c.documents, d)
		}
	}
	if len(c.documents) == 0 {
		return nil, fault.New(fault.Usage, "corpus %s: holds no text: give a file with words in it", path)
	}
	return c, nil
}

func textFiles(dir string) ([]string, error) {
	var paths []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && slices.Contains(extensions, filepath.Ext(path)) {
			paths = append(paths, path)
		}
		return err
	})
	if err == nil && len(paths) == 0 {
		err = fault.New(fault.Usage, "corpus %s: the folder has no .txt, .zst or .gz file", dir)
	}
	return paths, err
}

// Read returns the text of a file, decompressed (.zst, .gz) and checked: it is
// neither empty nor binary, and UTF-8.
func Read(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fault.Wrap(fault.Capability, err)
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.IsDir() {
		return "", fault.New(fault.Usage, "%s: is a folder: give a file", path)
	}
	var r io.Reader = f
	switch filepath.Ext(path) {
	case ".zst":
		z, err := zstd.NewReader(f)
		if err != nil {
			return "", err
		}
		defer z.Close()
		r = z
	case ".gz":
		if r, err = gzip.NewReader(f); err != nil {
			return "", fault.New(fault.Damaged, "%s: is not a gzip file: %w", path, err)
		}
	}
	text, err := io.ReadAll(r)
	if err != nil {
		return "", fault.New(fault.Damaged, "%s: damaged after %d bytes of text: %w", path, len(text), err)
	}
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
	if len(bytes.TrimSpace(text)) == 0 {
		return "", fault.New(fault.Usage, "%s: is empty", path)
	}
	if i := bytes.IndexByte(text, 0); i >= 0 {
		return "", fault.New(fault.Usage, "%s: is binary (zero byte at %d): give a text file", path, i)
	}
	if !utf8.Valid(text) {
		at := 0
		for at < len(text) {
			r, n := utf8.DecodeRune(text[at:])
			if r == utf8.RuneError && n == 1 {
				break
			}
			at += n
		}
		return "", fault.New(fault.Usage, "%s: is not UTF-8 (line %d, byte %d): convert it with iconv", path, 1+bytes.Count(text[:at], []byte("\n")), at)
	}
	return strings.ReplaceAll(string(text), "\r\n", "\n"), nil
}

// wrappedLine is the width up to which a text counts as wrapped: its blank
// lines then part paragraphs, not documents.
const wrappedLine = 100

// split cuts text into documents. In a file with one paragraph a line, blank
// lines part documents; in a wrapped book, where nearly all lines are short,
// three blank lines do (chapters), and lines of a paragraph are joined.
func split(text string) []string {
	lines, long := 0, 0
	for line := range strings.Lines(text) {
		if n := len(strings.TrimSpace(line)); n > 0 {
			lines++
			if n > wrappedLine {
				long++
			}
		}
	}
	separator := "\n\n"
	if long*10 < lines {
		separator = "\n\n\n\n"
	}
	var documents []string
	for d := range strings.SplitSeq(text, separator) {
		if separator != "\n\n" {
			d = unwrap(d)
		}
		if d = strings.TrimSpace(d); d != "" {
			documents = append(documents, d)
		}
	}
	return documents
}

// unwrap joins the lines of each paragraph.
func unwrap(text string) string {
	var paragraphs []string
	for p := range strings.SplitSeq(text, "\n\n") {
		if words := strings.Fields(p); len(words) > 0 {
			paragraphs = append(paragraphs, strings.Join(words, " "))
		}
	}
	return strings.Join(paragraphs, "\n")
}

// stripGutenberg keeps what stands between Project Gutenberg's start and end
// markers; text without them is kept whole.
func stripGutenberg(text string) string {
	if _, after, ok := cutLine(text, "*** START OF"); ok {
		text = after
	}
	if before, _, ok := cutLine(text, "*** END OF"); ok {
		text = before
	}
	return text
}

// cutLine cuts at the first line that begins with a marker; the newer form of
// Gutenberg's has a blank after the stars, the older none.
func cutLine(text, marker string) (before, after string, found bool) {
	for _, m := range []string{marker, strings.Replace(marker, "*** ", "***", 1)} {
		if i := strings.Index(text, m); i >= 0 && (i == 0 || text[i-1] == '\n') {
			end := strings.IndexByte(text[i:], '\n')
			if end < 0 {
				return text[:i], "", true
			}
			return text[:i], text[i+end+1:], true
		}
	}
	return text, "", false
}

// CountWords counts whitespace words.
func CountWords(text string) int { return len(strings.Fields(text)) }

// Words is the number of whitespace words.
func (c *Corpus) Words() int { return c.words }

// Documents gives all documents in order.
func (c *Corpus) Documents() iter.Seq[string] { return slices.Values(c.documents) }

// Split parts the documents into those to read and a held-out fraction, drawn
// by a seed; with two documents or more, neither part is empty. A single
// document is cut at a line break.
func (c *Corpus) Split(seed uint64, heldOut float64) (reading, held iter.Seq[string]) {
	documents := c.documents
	if len(documents) == 1 {
		text := documents[0]
		at := int(float64(len(text)) * (1 - heldOut))
		if i := strings.IndexAny(text[at:], "\n "); i >= 0 {
			at += i
		}
		documents = []string{text[:at], text[at:]}
		return slices.Values(documents[:1]), slices.Values(documents[1:])
	}
	n := min(max(1, int(heldOut*float64(len(documents)))), len(documents)-1)
	order := rand.New(rand.NewPCG(seed, uint64(len(documents)))).Perm(len(documents))
	isHeld := make([]bool, len(documents))
	for _, i := range order[:n] {
		isHeld[i] = true
	}
	part := func(want bool) iter.Seq[string] {
		return func(yield func(string) bool) {
			for i, d := range documents {
				if isHeld[i] == want && !yield(d) {
					return
				}
			}
		}
	}
	return part(false), part(true)
}
