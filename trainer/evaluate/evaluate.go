// Package evaluate owns the benchmarks of a student: minimal pairs, reading
// times, nonce adjectives. The protocols are those of BabyLM 2025 for causal
// models; docs/evaluation.md has them with their sources, and what differs.
package evaluate

import (
	"context"
	"math"

	"onceupon/bindings/student"
	"onceupon/trainer/fault"
)

// Text is what a student scores: Tokens[From:], each given all before it.
type Text struct {
	Tokens []int32
	From   int
}

// Student scores texts.
type Student struct {
	Model     *student.Model
	Tokenizer interface{ Encode(text string) []int32 }
	Progress  func(done, total int) // in items
}

// Text encodes text after context, two strings that BPE never joins: text
// begins with a space. Without a context the first token of text has nothing to
// be predicted from and is not scored.
func (s Student) Text(at Place, field, context, text string) (Text, error) {
	before := s.Tokenizer.Encode(context)
	t := Text{Tokens: append(before, s.Tokenizer.Encode(text)...), From: max(len(before), 1)}
	if most := s.Model.Config().Context; len(t.Tokens) > most {
		return t, fault.New(fault.Usage, "%s: field %s makes %d tokens, the student's context is %d: leave the line out, or take a student with a longer context", at, field, len(t.Tokens), most)
	}
	if len(t.Tokens) <= t.From {
		return t, fault.New(fault.Usage, "%s: field %s has no token after the first, which is never scored: leave the line out", at, field)
	}
	return t, nil
}

// Score is the log-probability, in nats, of each text of each item: the sum
// over its tokens, in double precision. The texts of an item share a call.
func (s Student) Score(ctx context.Context, items [][]Text) ([][]float64, error) {
	room := s.Model.Options()
	scores := make([][]float64, 0, len(items))
	for len(scores) < len(items) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		var rows [][]int32
		first, tokens, end := len(scores), 0, len(scores)
		for ; end < len(items); end++ {
			for _, t := range items[end] {
				tokens += len(t.Tokens)
			}
			if end > first && (tokens > room.MaxTokens || len(rows)+len(items[end]) > room.MaxStories) {
				break
			}
			for _, t := range items[end] {
				rows = append(rows, t.Tokens)
			}
		}
		batch := student.Pack(rows)
		logprob := make([]float32, len(batch.Tokens))
		if err := s.Model.Forward(batch, nil, student.Scores{Logprob: logprob}); err != nil {
			return nil, err
		}
		row := 0
		for _, item := range items[first:end] {
			sums := make([]float64, len(item))
			for i, t := range item {
				// entry k of a row speaks about token k + 1
				for _, l := range logprob[int(batch.Offsets[row])+t.From-1 : batch.Offsets[row+1]-1] {
					sums[i] += float64(l)
				}
				if math.IsNaN(sums[i]) || math.IsInf(sums[i], 0) {
					return nil, fault.New(fault.Numbers, "evaluate: the log-probability of item %d is not finite: the student's weights are damaged", len(scores)+1)
				}
				row++
			}
			scores = append(scores, sums)
		}
		if s.Progress != nil {
			s.Progress(len(scores), len(items))
		}
	}
	return scores, nil
}
