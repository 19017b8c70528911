package judge

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
	"math/rand/v2"

	"onceupon/bindings/llama"
)

// open reads the stories of a wave after the shared prefix and returns, per
// story, the index of its last token in the decode. Sequence i+1 is story i;
// its next position is length[i].
func (j *Judge) open(tokens [][]int32) (last []int, err error) {
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
// tokens, three integers parsed; an unreadable answer is asked for once more.
// The draws are keyed by the seed and the story's text.
func (j *Judge) sampled(texts []string, tokens [][]int32) ([]Rating, error) {
	ratings := make([]Rating, len(tokens))
	for i := range tokens {
		r := &ratings[i]
		for r.Asked < 2 {
			hash := sha256.Sum256([]byte(texts[i]))
			random := rand.New(rand.NewPCG(j.options.Seed, binary.LittleEndian.Uint64(hash[:])+uint64(r.Asked)))
			answer, first, err := j.answer(tokens[i], random)
			if err != nil {
				return nil, err
			}
			r.Asked++
			r.Text = answer
			marks, found := ParseMarks(answer)
			if r.Unreadable = found < 3; !r.Unreadable {
				r.Marks = marks
				r.Distribution[0] = first
				break
			}
		}
	}
	return ratings, nil
}

// answer samples one answer; first is the distribution of the digits at its
// first place.
func (j *Judge) answer(story []int32, random *rand.Rand) (text string, first [4]float64, err error) {
	last, err := j.open([][]int32{story})
	if err != nil {
		return "", first, err
	}
	at := last[0]
	for n := range answerTokens {
		logits, err := j.context.Logits(at)
		if err != nil {
			return "", first, err
		}
		if n == 0 {
			first = j.marks(logits)
		}
		token := draw(logits, j.options.Temperature, random.Float64())
		if j.model.IsEnd(token) {
			break
		}
		text += j.model.Piece(token)
		if n == answerTokens-1 {
			break
		}
		if err := j.context.Decode([]llama.Token{{ID: token, Position: int32(j.prefix + len(story) + n), Sequence: 1, Logits: true}}); err != nil {
			return "", first, err
		}
		at = 0
	}
	return text, first, j.close([][]int32{story})
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
