package tokenizer

import (
	"encoding/json"
	"fmt"
	"slices"

	"onceupon/trainer/fault"
)

// maxVocab bounds what a file may ask for; the largest known vocabularies have
// a quarter of it.
const maxVocab = 1 << 20

// Parse reads the bytes of a tokenizer.json. It accepts byte-level BPE with
// GPT-2's split pattern and nothing around it that would change ids; anything
// else is a fault.Damaged that names the field.
func Parse(data []byte) (*Tokenizer, error) {
	var f jsonFile
	if err := json.Unmarshal(data, &f); err != nil {
		return nil, notJSON("a tokenizer.json", err)
	}
	if err := f.check(); err != nil {
		return nil, fault.Wrap(fault.Damaged, err)
	}
	t := &Tokenizer{tokens: f.Model.Vocab, merges: make([]string, len(f.Model.Merges))}
	for i, m := range f.Model.Merges {
		t.merges[i] = string(m)
	}
	if err := t.addFrom(f.AddedTokens); err != nil {
		return nil, err
	}
	if hole := slices.Index(t.tokens, ""); hole >= 0 {
		return nil, fault.New(fault.Damaged, "model.vocab: no token has the id %d; ids must be dense", hole)
	}
	if err := t.indexTokens(); err != nil {
		return nil, fmt.Errorf("model.vocab: %w", err)
	}
	if err := t.finish(); err != nil {
		return nil, fmt.Errorf("model: %w", err)
	}
	return t, nil
}

// check refuses what this package does not do.
func (f *jsonFile) check() error {
	m := &f.Model
	switch {
	case m.Type != "BPE":
		return fmt.Errorf("model.type is %.80q, only BPE is supported", m.Type)
	case m.Dropout != nil && *m.Dropout != 0:
		return fmt.Errorf("model.dropout is %g, only 0 gives repeatable ids", *m.Dropout)
	case m.ContinuingSubwordPrefix != nil && *m.ContinuingSubwordPrefix != "":
		return fmt.Errorf("model.continuing_subword_prefix is %.80q, byte-level BPE has none", *m.ContinuingSubwordPrefix)
	case m.EndOfWordSuffix != nil && *m.EndOfWordSuffix != "":
		return fmt.Errorf("model.end_of_word_suffix is %.80q, byte-level BPE has none", *m.EndOfWordSuffix)
	case m.ByteFallback:
		return fmt.Errorf("model.byte_fallback is true, byte-level BPE has none")
	case m.IgnoreMerges:
		return fmt.Errorf("model.ignore_merges is true, which is not supported")
	case len(m.Vocab) == 0:
		return fmt.Errorf("model.vocab is missing or empty")
	case len(m.Vocab) > maxVocab:
		return fmt.Errorf("model.vocab has ids up to %d, more than %d", len(m.Vocab)-1, maxVocab)
	case given(f.Normalizer):
		return fmt.Errorf("normalizer is set, GPT-2's tokenizer has none")
	case given(f.Truncation):
		return fmt.Errorf("truncation is set: save the tokenizer without it")
	case given(f.Padding):
		return fmt.Errorf("padding is set: save the tokenizer without it")
	}
	return f.checkSteps()
}

func given(v json.RawMessage) bool { return len(v) > 0 && string(v) != "null" }

func (f *jsonFile) checkSteps() error {
	p := f.PreTokenizer
	switch {
	case p == nil || p.Type != "ByteLevel":
		return fmt.Errorf("pre_tokenizer is not ByteLevel")
	case p.AddPrefixSpace == nil || *p.AddPrefixSpace:
		return fmt.Errorf("pre_tokenizer.add_prefix_space is not false, as in GPT-2")
	case p.UseRegex != nil && !*p.UseRegex:
		return fmt.Errorf("pre_tokenizer.use_regex is false, so words are not split as in GPT-2")
	case f.PostProcessor != nil && f.PostProcessor.Type != "ByteLevel":
		return fmt.Errorf("post_processor is %.80q and may add tokens, only ByteLevel is supported", f.PostProcessor.Type)
	case f.Decoder != nil && f.Decoder.Type != "ByteLevel":
		return fmt.Errorf("decoder is %.80q, only ByteLevel is supported", f.Decoder.Type)
	}
	return nil
}

// addFrom takes the added tokens, which may repeat tokens of the vocabulary or
// go on after it.
func (t *Tokenizer) addFrom(added []jsonAdded) error {
	for _, a := range added {
		switch {
		case a.Content == "":
			return fault.New(fault.Damaged, "added_tokens: token %d has no content", a.ID)
		case a.ID < 0 || a.ID >= int64(len(t.tokens)+len(added)):
			return fault.New(fault.Damaged, "added_tokens: %.80q has the id %d, outside the vocabulary", a.Content, a.ID)
		case a.SingleWord || a.LStrip || a.RStrip:
			return fault.New(fault.Damaged, "added_tokens: %.80q asks for single_word, lstrip or rstrip, which are not supported", a.Content)
		}
		for int64(len(t.tokens)) <= a.ID {
			t.tokens = append(t.tokens, "")
		}
		if old := t.tokens[a.ID]; old != "" && old != a.Content {
			return fault.New(fault.Damaged, "added_tokens: id %d is %.80q here and %.80q in model.vocab", a.ID, a.Content, old)
		}
		t.tokens[a.ID] = a.Content
		t.added = append(t.added, addedToken{id: int32(a.ID), special: a.Special})
	}
	return nil
}
