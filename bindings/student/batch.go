package student

/*
#include "student.h"
*/
import "C"

import (
	"runtime"
	"unsafe"
)

// Batch holds stories packed end to end: story i is
// Tokens[Offsets[i]:Offsets[i+1]], len(Offsets) = stories + 1. What is before
// Offsets[0] is a prefix that all stories begin with, held and computed once.
type Batch struct {
	Tokens  []int32
	Offsets []int32
	First   []int32 // position of each story's first token; nil = Offsets[0]
}

// Pack packs stories into a Batch.
func Pack(stories [][]int32) Batch {
	b := Batch{Offsets: make([]int32, 1, len(stories)+1)}
	for _, s := range stories {
		b.Tokens = append(b.Tokens, s...)
		b.Offsets = append(b.Offsets, int32(len(b.Tokens)))
	}
	return b
}

// Stories is the number of stories.
func (b Batch) Stories() int { return len(b.Offsets) - 1 }

func (b Batch) native(p *runtime.Pinner) C.student_batch {
	pin(p, b.Tokens)
	pin(p, b.Offsets)
	pin(p, b.First)
	return C.student_batch{
		size: C.sizeof_student_batch, tokens: integers(b.Tokens), offsets: integers(b.Offsets),
		stories: C.int32_t(b.Stories()), first: integers(b.First),
	}
}

// Scores are per-token results of a forward; slices that are nil are not
// computed or fetched, others have one entry per packed token.
type Scores struct {
	Logprob []float32 // log p(target), nats
	Entropy []float32 // of the softmax, nats
	Value   []float32 // of the value head
}

// NewScores makes room for the scores of n tokens; values only with a value
// head.
func NewScores(n int, values bool) Scores {
	s := Scores{Logprob: make([]float32, n), Entropy: make([]float32, n)}
	if values {
		s.Value = make([]float32, n)
	}
	return s
}

// Forward scores every token's successor without dropout. targets[t] is the
// token scored at t, -1 for none; nil means the next token of the story.
// Activations stay for Hidden, Logits and one PPOBackward, which uses them up.
func (m *Model) Forward(b Batch, targets []int32, into Scores) error {
	n := len(b.Tokens)
	for what, x := range map[string][]float32{"logprob": into.Logprob, "entropy": into.Entropy, "value": into.Value} {
		if x != nil {
			if err := m.length(what, len(x), n); err != nil {
				return err
			}
		}
	}
	if targets != nil {
		if err := m.length("targets", len(targets), n); err != nil {
			return err
		}
	}
	var p runtime.Pinner
	defer p.Unpin()
	batch := b.native(&p)
	var message [messageBytes]C.char
	status := C.student_forward(m.handle, &batch, integers(targets), floats(into.Logprob), floats(into.Entropy),
		floats(into.Value), &message[0], messageBytes)
	return check("forward", status, &message)
}

// Hidden returns the residual stream before block layer of the last forward,
// or the final layer norm's output when layer is the number of blocks;
// [tokens][width].
func (m *Model) Hidden(layer, tokens int) ([]float32, error) {
	out := make([]float32, tokens*m.config.Width)
	var message [messageBytes]C.char
	return out, check("hidden", C.student_hidden(m.handle, C.int32_t(layer), floats(out), &message[0], messageBytes), &message)
}

// Logits returns the logits of count tokens from packed token first on;
// [count][vocab].
func (m *Model) Logits(first, count int) ([]float32, error) {
	out := make([]float32, count*m.config.Vocab)
	var message [messageBytes]C.char
	return out, check("logits", C.student_logits(m.handle, C.int32_t(first), C.int32_t(count), floats(out), &message[0], messageBytes), &message)
}

// Dropout is the key of the counter-based dropout masks of one update.
type Dropout struct {
	Probability float32
	Seed, Step  uint64
}

// CrossEntropy runs forward and backward of the sum of -log p(target), times
// scale, and adds to the gradients. It returns the unscaled sum in nats and
// the number of targets.
func (m *Model) CrossEntropy(b Batch, targets []int32, scale float32, d Dropout) (loss float64, scored int, err error) {
	if targets != nil {
		if err := m.length("targets", len(targets), len(b.Tokens)); err != nil {
			return 0, 0, err
		}
	}
	var p runtime.Pinner
	defer p.Unpin()
	batch := b.native(&p)
	drop := C.student_dropout{size: C.sizeof_student_dropout, probability: C.float(d.Probability), seed: C.uint64_t(d.Seed), step: C.uint64_t(d.Step)}
	var message [messageBytes]C.char
	var sum C.double
	var count C.int64_t
	status := C.student_cross_entropy(m.handle, &batch, integers(targets), C.float(scale), &drop, &sum, &count, &message[0], messageBytes)
	return float64(sum), int(count), check("cross entropy", status, &message)
}

// AdamW are the settings of one optimizer step, torch.optim.AdamW's formula;
// WeightDecay 0 is Adam.
type AdamW struct {
	LR, Beta1, Beta2, Epsilon float64
	WeightDecay               float64
	DecayVectors              bool    // decay biases and norms too
	MaxGradNorm               float32 // 0 = no clipping
	Step                      int64   // 1 for the first
}

// Update clips the gradients, makes one step and returns the norm before
// clipping.
func (m *Model) Update(a AdamW) (gradNorm float64, err error) {
	o := C.student_adamw_options{
		size: C.sizeof_student_adamw_options, lr: C.double(a.LR), beta1: C.double(a.Beta1), beta2: C.double(a.Beta2),
		epsilon: C.double(a.Epsilon), weight_decay: C.double(a.WeightDecay), decay_vectors: flag(a.DecayVectors),
		max_grad_norm: C.float(a.MaxGradNorm), step: C.int64_t(a.Step),
	}
	var message [messageBytes]C.char
	var norm C.double
	err = check("update", C.student_adamw(m.handle, &o, &norm, &message[0], messageBytes), &message)
	return float64(norm), err
}

// Generation are the settings of sampling.
type Generation struct {
	MaxNewTokens int
	Temperature  float32 // 1 = the model's own distribution, 0 = greedy
	TopK         int     // 0 = off
	TopP         float32 // 1 = off
	EndToken     int32   // -1 = none
	Seed         uint64  // with a story's id and position: the key of a draw
	// Dropout above 0 thins the network as in training. A story then depends on
	// its company, and Logprob is the thinned network's.
	Dropout float32
}

// Reply is what the student told after a prompt.
type Reply struct {
	Tokens  []int32   // the end token included when it was drawn
	Logprob []float32 // of every token, at temperature 1, nats
}

// Generate tells one story per prompt. ids key the sampling: a story is the
// same in whatever batch it is told, unless g.Dropout is above 0.
func (m *Model) Generate(prompts Batch, ids []uint64, g Generation) ([]Reply, error) {
	return m.GenerateEach(prompts, ids, g, nil)
}

// GenerateEach is Generate that hands over every reply as soon as it has ended:
// the shorter first, of equally long ones that of the lower index. An error of
// ended stops the telling and is returned; nil waits for them all.
func (m *Model) GenerateEach(prompts Batch, ids []uint64, g Generation, ended func(i int, r Reply) error) ([]Reply, error) {
	n := prompts.Stories()
	if err := m.length("story ids", len(ids), n); err != nil {
		return nil, err
	}
	o := C.student_generate_options{
		size: C.sizeof_student_generate_options, max_new_tokens: C.int32_t(g.MaxNewTokens), temperature: C.float(g.Temperature),
		top_k: C.int32_t(g.TopK), top_p: C.float(g.TopP), end_token: C.int32_t(g.EndToken), seed: C.uint64_t(g.Seed),
		dropout: C.float(g.Dropout),
	}
	room := max(g.MaxNewTokens, 0)
	tokens, logprob, lengths := make([]int32, n*room), make([]float32, n*room), make([]int32, n)
	replies := make([]Reply, n)
	listener := &listener{ended: func(i int) error {
		first, end := i*room, i*room+int(lengths[i])
		replies[i] = Reply{tokens[first:end:end], logprob[first:end:end]}
		if ended == nil {
			return nil
		}
		return ended(i, replies[i])
	}}
	defer listener.attach(&o).Delete()
	var p runtime.Pinner
	defer p.Unpin()
	batch := prompts.native(&p)
	var message [messageBytes]C.char
	status := C.student_generate(m.handle, &batch, (*C.uint64_t)(unsafe.Pointer(unsafe.SliceData(ids))), &o, integers(tokens),
		floats(logprob), integers(lengths), &message[0], messageBytes)
	if status == C.STUDENT_E_STOPPED {
		return nil, listener.err
	}
	return replies, check("generate", status, &message)
}
