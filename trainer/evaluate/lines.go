package evaluate

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
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

// read is the text of a file. Whatever keeps it from being text is a damage, as
// it is of a line.
func read(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", absent(path, err)
	}
	if info.IsDir() {
		return "", fault.New(fault.Usage, "%s: is a folder: give a file", path)
	}
	text, err := corpus.Read(path)
	return text, fault.Wrap(fault.Damaged, err)
}

func absent(path string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.Capability, "%s: no such file or folder: docs/evaluation.md says where the data come from", path)
	}
	return err
}

// files are path itself, or what a folder holds of JSON Lines, in order.
func files(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, absent(path, err)
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	var all []string
	err = filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && strings.HasSuffix(plainName(p), ".jsonl") {
			all = append(all, p)
		}
		return err
	})
	slices.Sort(all)
	for i := 1; i < len(all); i++ {
		if plainName(all[i]) == plainName(all[i-1]) {
			return nil, fault.New(fault.Usage, "%s and %s are one file twice, whose lines would count twice: remove one", all[i-1], all[i])
		}
	}
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
		text, err := read(p)
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
