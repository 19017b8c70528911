package evaluate

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"onceupon/trainer/corpus"
	"onceupon/trainer/fault"
)

// Place is where an item was read.
type Place struct {
	File string
	Line int // from 1
}

func (p Place) String() string { return fmt.Sprintf("%s: line %d", p.File, p.Line) }

// damaged says which field of a line is wrong.
func (p Place) damaged(field, format string, args ...any) error {
	return fault.New(fault.Damaged, "%s: field %s %s", p, field, fmt.Sprintf(format, args...))
}

// plainName is a file's name without .zst or .gz.
func plainName(path string) string {
	return strings.TrimSuffix(strings.TrimSuffix(path, ".zst"), ".gz")
}

// files are path itself, or what a folder holds of JSON Lines, in order.
func files(path string) ([]string, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.Usage, "%s: no such file or folder", path)
	}
	if err != nil || !info.IsDir() {
		return []string{path}, err
	}
	var all []string
	err = filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && strings.HasSuffix(plainName(p), ".jsonl") {
			all = append(all, p)
		}
		return err
	})
	if err == nil && len(all) == 0 {
		err = fault.New(fault.Usage, "%s: the folder has no .jsonl, .jsonl.zst or .jsonl.gz file", path)
	}
	return all, err
}

// readLines reads the lines of JSON Lines into records of type T.
func readLines[T any](path string, add func(Place, T) error) error {
	paths, err := files(path)
	if err != nil {
		return err
	}
	for _, p := range paths {
		text, err := corpus.Read(p)
		if err != nil {
			return err
		}
		at := Place{File: p}
		for line := range strings.SplitSeq(strings.TrimRight(text, "\n \t"), "\n") {
			at.Line++
			var record T
			if err := json.Unmarshal([]byte(line), &record); err != nil {
				return fault.New(fault.Damaged, "%s is not a JSON object as docs/formats.md has them: %w", at, fault.Brief(err))
			}
			if err := add(at, record); err != nil {
				return err
			}
		}
	}
	return nil
}
