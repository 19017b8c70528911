// Package xtest owns what the tests of several packages share.
package xtest

import (
	"io"
	"os"
	"runtime"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// ReadZstd is the text of a .zst file, whole.
func ReadZstd(t testing.TB, path string) []byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := zstd.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	text, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// Frugal fails a test of a reader when read takes more memory, garbage
// included, than factor times the size of what it was given, and a megabyte.
func Frugal(t testing.TB, size, factor int, read func()) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	read()
	runtime.ReadMemStats(&after)
	if taken, most := after.TotalAlloc-before.TotalAlloc, uint64(factor*size+1<<20); taken > most {
		t.Errorf("%d bytes of input took %d bytes of memory; %d are allowed", size, taken, most)
	}
}
