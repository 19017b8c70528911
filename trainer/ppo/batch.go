package ppo

import (
	"onceupon/bindings/student"
)

// Batch are the stories of one PPO step.
type Batch struct {
	Stories student.Batch // prompts and replies, packed
	Prompts []int         // tokens of each story's prompt, at least 1
	Scores  []float32     // reward of each story
}

// Mask is 1 at the columns whose next token belongs to a reply (TRL
// batched_forward_pass).
func (b Batch) Mask() []float32 {
	mask := make([]float32, len(b.Stories.Tokens))
	for i, prompt := range b.Prompts {
		for t := int(b.Stories.Offsets[i]) + prompt - 1; t < int(b.Stories.Offsets[i+1])-1; t++ {
			mask[t] = 1
		}
	}
	return mask
}

// pick packs the given stories of b; rows[i] lists the packed tokens of b
// that token i of the result came from, in ranges.
func pick(b student.Batch, stories []int) student.Batch {
	out := student.Batch{Offsets: make([]int32, 1, len(stories)+1)}
	for _, i := range stories {
		out.Tokens = append(out.Tokens, b.Tokens[b.Offsets[i]:b.Offsets[i+1]]...)
		out.Offsets = append(out.Offsets, int32(len(out.Tokens)))
		if b.First != nil {
			out.First = append(out.First, b.First[i])
		}
	}
	return out
}

// pickFloats packs a per-token array like pick packs the tokens.
func pickFloats(b student.Batch, x []float32, stories []int) []float32 {
	var out []float32
	for _, i := range stories {
		out = append(out, x[b.Offsets[i]:b.Offsets[i+1]]...)
	}
	return out
}

// split cuts a list of stories into parts that one call of the model takes.
func split(b student.Batch, stories []int, o student.Options) [][]int {
	var parts [][]int
	tokens, first := 0, 0
	for k, i := range stories {
		n := int(b.Offsets[i+1] - b.Offsets[i])
		if k > first && (tokens+n > o.MaxTokens || k-first == o.MaxStories) {
			parts = append(parts, stories[first:k])
			tokens, first = 0, k
		}
		tokens += n
	}
	return append(parts, stories[first:])
}

// score runs m over all stories, in parts, and returns packed scores.
func score(m *student.Model, b student.Batch, values bool) (student.Scores, error) {
	all := student.NewScores(len(b.Tokens), values)
	everyone := make([]int, b.Stories())
	for i := range everyone {
		everyone[i] = i
	}
	for _, part := range split(b, everyone, m.Options()) {
		first, end := b.Offsets[part[0]], b.Offsets[part[len(part)-1]+1]
		s := student.Scores{Logprob: all.Logprob[first:end], Entropy: all.Entropy[first:end]}
		if values {
			s.Value = all.Value[first:end]
		}
		if err := m.Forward(pick(b, part), nil, s); err != nil {
			return student.Scores{}, err
		}
	}
	return all, nil
}
