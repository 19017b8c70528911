package ppo

import (
	"slices"

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

// sharedPrompt is how many tokens of their prompts the stories share in a batch
// that holds these once: as many as all prompts begin with, but for a prompt's
// last token, whose column predicts the story's own first one. 0 where stories do
// not begin at the first position.
func sharedPrompt(b Batch) int {
	if b.Stories.First != nil {
		return 0
	}
	shared := b.Prompts[0] - 1
	for i, prompt := range b.Prompts {
		shared = min(shared, prompt-1)
		story := b.Stories.Tokens[b.Stories.Offsets[i]:]
		for t := range shared {
			if story[t] != b.Stories.Tokens[t] {
				shared = t
				break
			}
		}
	}
	return shared
}

// layout is how a batch is given to the models: the first tokens of its stories,
// so many, are a prefix of each call's batch.
type layout struct {
	student.Batch // without a prefix
	shared        int
}

// pick packs the given stories behind their prefix.
func (l layout) pick(stories []int) student.Batch {
	out := student.Batch{Tokens: pickRows(l, l.Tokens, stories), Offsets: []int32{int32(l.shared)}}
	for k, i := range stories {
		out.Offsets = append(out.Offsets, out.Offsets[k]+l.Offsets[i+1]-l.Offsets[i]-int32(l.shared))
		if l.First != nil {
			out.First = append(out.First, l.First[i])
		}
	}
	return out
}

// pickRows packs a per-token array like pick packs the tokens; the prefix has
// the entries of the first story.
func pickRows[T any](l layout, x []T, stories []int) []T {
	first := l.Offsets[stories[0]]
	out := slices.Clone(x[first : first+int32(l.shared)])
	for _, i := range stories {
		out = append(out, x[l.Offsets[i]+int32(l.shared):l.Offsets[i+1]]...)
	}
	return out
}

// unpick gives every story its own copy of the prefix's entries again.
func (l layout) unpick(x []float32, stories []int) []float32 {
	if l.shared == 0 {
		return x
	}
	var out []float32
	at := l.shared
	for _, i := range stories {
		n := int(l.Offsets[i+1]-l.Offsets[i]) - l.shared
		out = append(append(out, x[:l.shared]...), x[at:at+n]...)
		at += n
	}
	return out
}

// split cuts a list of stories into parts that one call of the model takes.
func (l layout) split(stories []int, o student.Options) [][]int {
	var parts [][]int
	tokens, first := l.shared, 0
	for k, i := range stories {
		n := int(l.Offsets[i+1]-l.Offsets[i]) - l.shared
		if k > first && (tokens+n > o.MaxTokens || k-first == o.MaxStories) {
			parts = append(parts, stories[first:k])
			tokens, first = l.shared, k
		}
		tokens += n
	}
	return append(parts, stories[first:])
}

// forward scores the given stories; the scores are those of whole stories.
func (l layout) forward(m *student.Model, stories []int, values bool) (student.Scores, error) {
	packed := l.pick(stories)
	s := student.NewScores(len(packed.Tokens), values)
	err := m.Forward(packed, nil, s)
	s.Logprob, s.Entropy = l.unpick(s.Logprob, stories), l.unpick(s.Entropy, stories)
	if values {
		s.Value = l.unpick(s.Value, stories)
	}
	return s, err
}

// score runs m over all stories, in parts, and returns packed scores.
func (l layout) score(m *student.Model, values bool) (all student.Scores, err error) {
	for _, part := range l.split(identity(l.Stories()), m.Options()) {
		s, err := l.forward(m, part, values)
		if err != nil {
			return student.Scores{}, err
		}
		all.Logprob, all.Entropy, all.Value = append(all.Logprob, s.Logprob...), append(all.Entropy, s.Entropy...), append(all.Value, s.Value...)
	}
	return all, nil
}
