package tokenizer

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"onceupon/trainer/fault"
)

// Load reads a tokenizer.json. A missing or unreadable file is a
// fault.Capability, one that is not a byte-level BPE a fault.Damaged that
// names the field.
func Load(path string) (*Tokenizer, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fault.New(fault.Capability, "load tokenizer: %w", err)
	}
	t, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("load tokenizer %q: %w", path, err)
	}
	return t, nil
}

// Save writes tokenizer.json for Load, for Hugging Face's libraries and for
// whatever else reads that format. A crash leaves the old file or the new one.
func (t *Tokenizer) Save(path string) error {
	data, err := t.JSON()
	if err != nil {
		return fmt.Errorf("save tokenizer %q: %w", path, err)
	}
	if err := replaceFile(path, data, 0o644); err != nil {
		return fmt.Errorf("save tokenizer %q: %w", path, err)
	}
	return nil
}

// replaceFile writes data beside path, syncs it and renames it to path.
func replaceFile(path string, data []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		// The error above says what failed; this only tidies up.
		_ = os.Remove(f.Name())
	}
	return err
}

// JSON returns the tokenizer in the format of tokenizer.json. The same
// tokenizer always gives the same bytes. Merges are written as "a b", which
// every version of Hugging Face's library reads.
func (t *Tokenizer) JSON() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(t.file())
	return b.Bytes(), err
}

// file returns the document that JSON writes.
func (t *Tokenizer) file() *jsonFile {
	yes, no, none := true, false, ""
	f := &jsonFile{
		Version:       "1.0",
		AddedTokens:   []jsonAdded{},
		PreTokenizer:  &jsonStep{Type: "ByteLevel", AddPrefixSpace: &no, TrimOffsets: &yes, UseRegex: &yes},
		PostProcessor: &jsonStep{Type: "ByteLevel", AddPrefixSpace: &yes, TrimOffsets: &no, UseRegex: &yes},
		Decoder:       &jsonStep{Type: "ByteLevel", AddPrefixSpace: &yes, TrimOffsets: &yes, UseRegex: &yes},
		Model: jsonModel{
			Type:                    "BPE",
			ContinuingSubwordPrefix: &none,
			EndOfWordSuffix:         &none,
			Vocab:                   orderedVocab(t.tokens),
			Merges:                  make([]jsonMerge, len(t.merges)),
		},
	}
	for i, m := range t.merges {
		f.Model.Merges[i] = jsonMerge(m)
	}
	for _, a := range t.added {
		f.AddedTokens = append(f.AddedTokens, jsonAdded{ID: int64(a.id), Content: t.tokens[a.id], Special: a.special})
	}
	return f
}
