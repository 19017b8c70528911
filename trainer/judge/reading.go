package judge

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"time"

	"onceupon/bindings/llama"
)

// open reads the stories of a wave after the shared prefix and returns, per
// story, the index of its last token in the decode. Sequence i+1 is story i;
// its next position is length[i].
func (j *Judge) open(tokens [][]int32) (last []int, err error) {
	started := time.Now()
	defer func() { j.stats.PrefillSeconds += time.Since(started).Seconds() }()
	var all []llama.Token
	for i, story := range tokens {
		sequence := int32(i + 1)
		// From the prefix on, in case an error left something behind.
		if err := j.context.Forget(sequence, 0); err != nil {
			return nil, err
		}
		j.context.Share(0, sequence)
		for k, id := range story {
			all = append(all, llama.Token{ID: id, Position: int32(j.prefix + k), Sequence: sequence, Logits: k == len(story)-1})
		}
		last = append(last, len(all)-1)
	}
	return last, j.context.Decode(all)
}

func (j *Judge) close(tokens [][]int32) error {
	for i := range tokens {
		if err := j.context.Forget(int32(i+1), 0); err != nil {
			return err
		}
	}
	return nil
}

// marks are the probabilities of the digits 0..3 among themselves.
func (j *Judge) marks(logits []float32) (p [4]float64) {
	top := math.Inf(-1)
	for _, id := range j.digits {
		top = math.Max(top, float64(logits[id]))
	}
	sum := 0.0
	for i, id := range j.digits {
		p[i] = math.Exp(float64(logits[id]) - top)
		sum += p[i]
	}
	for i := range p {
		p[i] /= sum
	}
	return p
}

// expected forces the separators and keeps the distribution of the digit at
// each of the three places; a later place is conditioned on the most probable
// digits before it.
func (j *Judge) expected(_ []string, tokens [][]int32) ([]Rating, error) {
	last, err := j.open(tokens)
	if err != nil {
		return nil, err
	}
	distributions := make([][3][4]float64, len(tokens))
	for place := range 3 {
		var next []llama.Token
		for i := range tokens {
			logits, err := j.context.Logits(last[i])
			if err != nil {
				return nil, err
			}
			p := j.marks(logits)
			distributions[i][place] = p
			best := 0
			for mark := range p {
				if p[mark] > p[best] {
					best = mark
				}
			}
			at := int32(j.prefix + len(tokens[i]) + 2*place)
			next = append(next, llama.Token{ID: j.digits[best], Position: at, Sequence: int32(i + 1)},
				llama.Token{ID: j.space, Position: at + 1, Sequence: int32(i + 1), Logits: true})
			last[i] = len(next) - 1
		}
		if place < 2 {
			if err := j.context.Decode(next); err != nil {
				return nil, err
			}
		}
	}
	ratings := make([]Rating, len(tokens))
	for i, d := range distributions {
		ratings[i] = fromDistribution(d)
	}
	return ratings, j.close(tokens)
}

// answerTokens is the paper's max_tokens.
const answerTokens = 6

// sampled lets the teacher answer as in the paper: temperature, at most 6
// tokens, three integers parsed; unreadable answers are asked for once more.
// The draws are keyed by the seed and the story's text.
func (j *Judge) sampled(texts []string, tokens [][]int32) ([]Rating, error) {
	ratings := make([]Rating, len(tokens))
	paper := j.options.MissingMarks == "paper"
	read := ParseMarks
	if paper {
		read = paperMarks
	}
	pending := make([]int, len(tokens))
	for i := range pending {
		pending[i] = i
	}
	for asked := 0; asked < 2 && len(pending) > 0; asked++ {
		var stories [][]int32
		var random []*rand.Rand
		for _, i := range pending {
			hash := sha256.Sum256([]byte(texts[i]))
			random = append(random, rand.New(rand.NewPCG(j.options.Seed, binary.LittleEndian.Uint64(hash[:])+uint64(asked))))
			stories = append(stories, tokens[i])
		}
		answers, err := j.answers(stories, random)
		if err != nil {
			return nil, err
		}
		var again []int
		for k, i := range pending {
			r := &ratings[i]
			r.Asked++
			r.Text = answers[k].text
			marks, found := read(r.Text)
			if paper {
				r.Missing = 3 - found
			}
			if r.Unreadable = found < 3 && !paper; r.Unreadable {
				again = append(again, i)
				continue
			}
			r.Marks, r.Distribution[0] = marks, answers[k].first
		}
		pending = again
	}
	return ratings, nil
}

// answer is what the teacher says of one story.
type answer struct {
	text  string
	first [4]float64 // the distribution of the digits at the first place
}

// answers samples one answer to each story of a wave; those that have ended
// leave the decodes.
func (j *Judge) answers(stories [][]int32, random []*rand.Rand) ([]answer, error) {
	at, err := j.open(stories)
	if err != nil {
		return nil, err
	}
	all := make([]answer, len(stories))
	for n := range answerTokens {
		var next []llama.Token
		for i := range stories {
			if at[i] < 0 {
				continue
			}
			logits, err := j.context.Logits(at[i])
			if err != nil {
				return nil, err
			}
			if n == 0 {
				all[i].first = j.marks(logits)
			}
			token := draw(logits, j.options.Temperature, random[i].Float64())
			if at[i] = -1; j.model.IsEnd(token) {
				continue
			}
			all[i].text += j.model.Piece(token)
			if n < answerTokens-1 {
				at[i] = len(next)
				next = append(next, llama.Token{ID: token, Position: int32(j.prefix + len(stories[i]) + n), Sequence: int32(i + 1), Logits: true})
			}
		}
		if len(next) == 0 {
			break
		}
		if err := j.context.Decode(next); err != nil {
			return nil, err
		}
	}
	return all, j.close(stories)
}

// draw samples a token at a temperature; 0 takes the best.
func draw(logits []float32, temperature, uniform float64) int32 {
	best := 0
	for i, l := range logits {
		if l > logits[best] {
			best = i
		}
	}
	if temperature == 0 {
		return int32(best)
	}
	weight := func(l float32) float64 { return math.Exp(float64(l-logits[best]) / temperature) }
	total := 0.0
	for _, l := range logits {
		total += weight(l)
	}
	sum := 0.0
	for i, l := range logits {
		if sum += weight(l); sum > uniform*total {
			return int32(i)
		}
	}
	return int32(best)
}
