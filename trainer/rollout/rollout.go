// Package rollout owns the telling of stories: prompts go to the student in
// waves, replies come back as tokens, text and log-probabilities.
package rollout

import (
	"context"

	"onceupon/bindings/student"
	"onceupon/trainer/fault"
)

// Story is what the student told: prompt and reply.
type Story struct {
	ID      uint64 // with the seed: the key of every draw
	Prompt  []int32
	Reply   []int32   // the end token included when the student ended the story
	Logprob []float32 // of every token of the reply, at temperature 1, nats
	Text    string    // prompt and reply as the teacher reads them
	Words   string    // the reply alone
}

// LogprobSum is the log-probability of the reply, in nats.
func (s Story) LogprobSum() float64 {
	sum := 0.0
	for _, l := range s.Logprob {
		sum += float64(l)
	}
	return sum
}

// Tokenizer is what rollout needs of one.
type Tokenizer interface {
	Decode(ids []int32, skipSpecial bool) string
}

// Teller tells stories with one student.
type Teller struct {
	Model      *student.Model
	Tokenizer  Tokenizer
	Generation student.Generation
}

// Tell tells one story per id, all after the same prompt. The stories do not
// depend on how many are told together. Unless it is nil, ended gets each story
// as soon as it has ended: of those told together the shorter first, of equally
// long ones that of the lower index. An error of its stops the telling.
func (t Teller) Tell(ctx context.Context, prompt []int32, ids []uint64, ended func(i int, s Story) error) ([]Story, error) {
	if len(prompt) == 0 {
		return nil, fault.New(fault.Usage, "rollout: the prompt is empty")
	}
	wave := t.Model.Options().DecodeStories
	stories := make([]Story, len(ids))
	for first := 0; first < len(ids); first += wave {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		part := ids[first:min(first+wave, len(ids))]
		prompts := make([][]int32, len(part))
		for i := range prompts {
			prompts[i] = prompt
		}
		_, err := t.Model.GenerateEach(student.Pack(prompts), part, t.Generation, func(i int, r student.Reply) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			all := append(append([]int32(nil), prompt...), r.Tokens...)
			stories[first+i] = Story{
				ID: part[i], Prompt: prompt, Reply: r.Tokens, Logprob: r.Logprob,
				Text: t.Tokenizer.Decode(all, true), Words: t.Tokenizer.Decode(r.Tokens, true),
			}
			if ended == nil {
				return nil
			}
			return ended(first+i, stories[first+i])
		})
		if err != nil {
			return nil, err
		}
	}
	return stories, nil
}

// Pack packs stories for the student and returns the tokens of each prompt.
func Pack(stories []Story) (b student.Batch, prompts []int) {
	rows := make([][]int32, len(stories))
	for i, s := range stories {
		rows[i] = append(append([]int32(nil), s.Prompt...), s.Reply...)
		prompts = append(prompts, len(s.Prompt))
	}
	return student.Pack(rows), prompts
}

// MaxLogprobDifference is the largest difference between the log-probabilities
// recorded while sampling and those of a forward over the packed stories.
func MaxLogprobDifference(stories []Story, b student.Batch, logprob []float32) float64 {
	worst := 0.0
	for i, s := range stories {
		first := int(b.Offsets[i]) + len(s.Prompt) - 1
		for k, l := range s.Logprob {
			d := float64(l) - float64(logprob[first+k])
			worst = max(worst, d, -d)
		}
	}
	return worst
}
