package tokenizer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// jsonFile is tokenizer.json as far as a byte-level BPE uses it, in the order
// in which Hugging Face's library writes it.
type jsonFile struct {
	Version       string          `json:"version"`
	Truncation    json.RawMessage `json:"truncation"`
	Padding       json.RawMessage `json:"padding"`
	AddedTokens   []jsonAdded     `json:"added_tokens"`
	Normalizer    json.RawMessage `json:"normalizer"`
	PreTokenizer  *jsonStep       `json:"pre_tokenizer"`
	PostProcessor *jsonStep       `json:"post_processor"`
	Decoder       *jsonStep       `json:"decoder"`
	Model         jsonModel       `json:"model"`
}

type jsonAdded struct {
	ID         int64  `json:"id"`
	Content    string `json:"content"`
	SingleWord bool   `json:"single_word"`
	LStrip     bool   `json:"lstrip"`
	RStrip     bool   `json:"rstrip"`
	Normalized bool   `json:"normalized"`
	Special    bool   `json:"special"`
}

// jsonStep is a stage before or after the model.
type jsonStep struct {
	Type           string `json:"type"`
	AddPrefixSpace *bool  `json:"add_prefix_space"`
	TrimOffsets    *bool  `json:"trim_offsets"`
	UseRegex       *bool  `json:"use_regex"`
}

type jsonModel struct {
	Type                    string       `json:"type"`
	Dropout                 *float64     `json:"dropout"`
	UnkToken                *string      `json:"unk_token"`
	ContinuingSubwordPrefix *string      `json:"continuing_subword_prefix"`
	EndOfWordSuffix         *string      `json:"end_of_word_suffix"`
	FuseUnk                 bool         `json:"fuse_unk"`
	ByteFallback            bool         `json:"byte_fallback"`
	IgnoreMerges            bool         `json:"ignore_merges"`
	Vocab                   orderedVocab `json:"vocab"`
	Merges                  []jsonMerge  `json:"merges"`
}

// orderedVocab is the tokens by id. In JSON it is an object from name to id;
// reading leaves a hole ("") at an id that no name has.
type orderedVocab []string

// MarshalJSON writes the names in order of id, which a map would not.
func (v orderedVocab) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	b.WriteByte('{')
	for id, name := range v {
		if id > 0 {
			b.WriteByte(',')
		}
		if err := e.Encode(name); err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, ":%d", id)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// UnmarshalJSON refuses ids that cannot be those of so many names, before any
// memory is taken for them.
func (v *orderedVocab) UnmarshalJSON(data []byte) error {
	var ids map[string]int64
	if err := json.Unmarshal(data, &ids); err != nil {
		return fmt.Errorf("vocab: %w", err)
	}
	highest := int64(-1)
	for name, id := range ids {
		// Added tokens may fill holes, but a name and its id take more than four
		// bytes.
		if id < 0 || id >= int64(len(data)/4) {
			return fmt.Errorf("vocab: token %.80q has the id %d, outside the vocabulary", name, id)
		}
		highest = max(highest, id)
	}
	tokens := make([]string, highest+1)
	for name, id := range ids {
		if tokens[id] != "" {
			return fmt.Errorf("vocab: id %d is given to two tokens", id)
		}
		if name == "" {
			return fmt.Errorf("vocab: id %d has an empty name", id)
		}
		tokens[id] = name
	}
	*v = tokens
	return nil
}

// jsonMerge is a merge "a b"; newer files write ["a", "b"].
type jsonMerge string

func (m *jsonMerge) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '[' {
		var parts []string
		if err := json.Unmarshal(data, &parts); err != nil {
			return err
		}
		if len(parts) != 2 || strings.Contains(parts[0]+parts[1], " ") {
			return errors.New("merges: an entry is not two tokens")
		}
		*m = jsonMerge(parts[0] + " " + parts[1])
		return nil
	}
	var s string
	if err := json.Unmarshal(data, &s); err != nil {
		return err
	}
	*m = jsonMerge(s)
	return nil
}
