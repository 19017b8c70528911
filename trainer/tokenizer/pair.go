package tokenizer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"onceupon/trainer/fault"
)

// LoadPair reads a tokenizer in the older form of GPT-2's: vocab.json, ids by
// name, and merges.txt, one merge a line. Errors are those of Load.
func LoadPair(vocabPath, mergesPath string) (*Tokenizer, error) {
	vocab, err := os.ReadFile(vocabPath)
	if err != nil {
		return nil, fault.New(fault.Capability, "load tokenizer: %w", err)
	}
	merges, err := os.ReadFile(mergesPath)
	if err != nil {
		return nil, fault.New(fault.Capability, "load tokenizer: %w: it belongs to %s", err, vocabPath)
	}
	tokens, err := ParseVocab(vocab)
	if err != nil {
		return nil, fmt.Errorf("load tokenizer %q: %w", vocabPath, err)
	}
	pairs, err := ParseMerges(merges)
	if err != nil {
		return nil, fmt.Errorf("load tokenizer %q: %w", mergesPath, err)
	}
	// Neither file says which tokens are special; these names are.
	var specials []string
	for _, name := range append(PaperSpecials(), endNames()...) {
		if slices.Contains(tokens, name) && !slices.Contains(specials, name) {
			specials = append(specials, name)
		}
	}
	t, err := FromParts(tokens, pairs, specials)
	if err != nil {
		return nil, fmt.Errorf("load tokenizer %q and %q: %w", vocabPath, mergesPath, err)
	}
	return t, nil
}

// ParseVocab reads the bytes of a vocab.json: the tokens in order of id.
func ParseVocab(data []byte) ([]string, error) {
	var v orderedVocab
	if err := json.Unmarshal(data, &v); err != nil {
		return nil, notJSON("a vocab.json", err)
	}
	if hole := slices.Index(v, ""); hole >= 0 {
		return nil, fault.New(fault.Damaged, "vocab: no token has the id %d; ids must be dense", hole)
	}
	return v, nil
}

// ParseMerges reads the bytes of a merges.txt: "a b" a line, in order of rank;
// the first line may name a version.
func ParseMerges(data []byte) ([]string, error) {
	merges := make([]string, 0, bytes.Count(data, []byte("\n"))+1)
	at, number := 0, 0
	for line := range bytes.Lines(data) {
		begin := at
		at += len(line)
		number++
		text := strings.TrimRight(string(line), "\r\n")
		if text == "" || number == 1 && strings.HasPrefix(text, "#version") {
			continue
		}
		if a, b, ok := strings.Cut(text, " "); !ok || a == "" || b == "" || strings.Contains(b, " ") {
			return nil, fault.New(fault.Damaged, "line %d (at byte %d): %.80q is not two tokens with a space between", number, begin, text)
		}
		merges = append(merges, text)
	}
	return merges, nil
}

// notJSON tells what encoding/json refused, and where it says so.
func notJSON(what string, err error) error {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return fault.New(fault.Damaged, "not %s: at byte %d: %w", what, syntax.Offset, fault.Brief(err))
	case errors.As(err, &kind):
		return fault.New(fault.Damaged, "not %s: at byte %d: %w", what, kind.Offset, fault.Brief(err))
	}
	return fault.New(fault.Damaged, "not %s: %w", what, fault.Brief(err))
}
