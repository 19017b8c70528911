package judge

import (
	"fmt"

	"onceupon/bindings/llama"
	"onceupon/trainer/fault"
)

// answerRoom is what the marks take in the cache, beside story and tail.
const answerRoom = 8

// Candidate is a teacher whose file was looked at but not loaded.
type Candidate struct {
	Header llama.Header
	rubric Rubric
	frame  frame
	room   int // tokens of story, tail and answer

	library *llama.Library // of Check
}

// Examine finds a teacher's file and checks all that its header tells: whether
// it is whole, of a family that can judge, of a known type, the model that its
// name promises, and has a chat template that the rubric can be put into.
// Nothing is loaded.
func Examine(o Options) (Candidate, error) {
	var c Candidate
	path, rubric, err := FindModel(o.Model)
	if err != nil {
		return c, err
	}
	if c.Header, err = llama.ReadHeader(path); err != nil {
		return c, err
	}
	if known, ok := Named(o.Model); ok {
		if err := known.Shape.Matches(c.Header); err != nil {
			return c, err
		}
	}
	if o.Rubric != "" {
		rubric = o.Rubric
	}
	if rubric == "" {
		rubric = "chat"
	}
	if c.rubric, err = LoadRubric(rubric); err != nil {
		return c, err
	}
	if c.frame, err = c.rubric.render(o.Prompt, c.Header.ChatTemplate); err != nil {
		return c, fmt.Errorf("teacher %s: %w", path, err)
	}
	c.room = o.MaxTokens + answerRoom
	return c, nil
}

// Check says what Open would refuse before it loads a teacher: a library that
// is not there or lacks the device, and all that Examine and the vocabulary
// tell. No weights are read.
func Check(o Options) (Candidate, error) {
	library, err := OpenLlama(o.LlamaDir, o.Device, o.Log)
	if err != nil {
		return Candidate{}, err
	}
	c, err := Examine(o)
	if err != nil {
		return c, err
	}
	c.library = library
	return c, c.fits()
}

// RubricBytes is the length of what stands before a story: an upper bound of
// its tokens.
func (c Candidate) RubricBytes() int { return len(c.frame.prefix) + 1 }

// fits checks that the model was trained for rubric and story together. A token
// has at least a byte, so the vocabulary is only loaded when bytes do not
// settle it.
func (c Candidate) fits() error {
	limit := c.Header.Context
	if limit == 0 || c.RubricBytes()+len(c.frame.tail)+c.room <= limit {
		return nil
	}
	v, err := c.library.LoadVocabulary(c.Header.Path)
	if err != nil {
		return err
	}
	defer v.Close()
	prefix, tail, err := c.frame.tokens(v)
	if err != nil {
		return err
	}
	if need := len(prefix) + len(tail) + c.room; need > limit {
		return fault.New(fault.Usage, "teacher %s: its context of %d tokens is too short: rubric %s has %d, a story may have %d: shorten rubric or rollout.max_new_tokens, or take another teacher",
			c.Header.Path, limit, c.rubric.Name, len(prefix)+len(tail), c.room)
	}
	return nil
}

// tokens are those of prefix and tail, with the token that begins a text.
func (f frame) tokens(m *llama.Model) (prefix, tail []int32, err error) {
	if prefix, err = m.Tokenize(f.prefix, f.special); err != nil {
		return nil, nil, err
	}
	if bos, wanted := m.BOS(); wanted {
		prefix = append([]int32{bos}, prefix...)
	}
	tail, err = m.Tokenize(f.tail, f.special)
	return prefix, tail, err
}
