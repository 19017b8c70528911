package llama

import (
	"errors"
	"unsafe"

	"onceupon/trainer/fault"
)

// ContextOptions size a Context.
type ContextOptions struct {
	Tokens int // cells of the cache, all sequences together
	Batch  int // tokens of one Decode
	// MicroBatch is how many of them one pass computes; 0 = libllama's 512. The
	// last digits of the logits depend on it.
	MicroBatch int
	Sequences  int
	Outputs    int // rows of logits of one Decode
	Threads    int
	// Exact keeps the cache in F32 and attends without the fused kernel, which
	// rounds to half: for comparing numbers, not for speed.
	Exact bool
	Watch *Watch // nil = none
}

// Context is a model's cache and workspace. One goroutine at a time.
type Context struct {
	model   *Model
	options ContextOptions
	handle  uintptr
	memory  uintptr
	watch   uintptr
	batch   batch
	outputs int // rows of the last Decode
}

// Token is one entry of a Decode: where it stands and whether the logits after
// it are wanted.
type Token struct {
	ID, Position, Sequence int32
	Logits                 bool
}

// ErrMemory is why NewContext fails when its device has no room for the cache
// or the workspace.
var ErrMemory = errors.New("not enough memory")

// NewContext makes a context with one unified cache, so that sequences share
// the cells of a common prefix instead of copying them.
func (m *Model) NewContext(o ContextOptions) (*Context, error) {
	p := m.library.contextDefaults()
	p.context, p.batch, p.sequences = uint32(o.Tokens), uint32(o.Batch), uint32(o.Sequences)
	if o.MicroBatch > 0 {
		p.microBatch = uint32(o.MicroBatch)
	}
	// libllama asserts on fewer outputs than sequences.
	p.outputs = uint32(max(o.Outputs, o.Sequences))
	p.threads, p.threadsBatch = int32(o.Threads), int32(o.Threads)
	p.kvUnified = true
	p.noPerf = true
	p.offloadKQV, p.opOffload = m.card != nil, m.card != nil
	if o.Exact {
		p.typeK, p.typeV, p.flashAttention = 0, 0, 0 // GGML_TYPE_F32, LLAMA_FLASH_ATTN_TYPE_DISABLED
	}
	c := &Context{model: m, options: o}
	if o.Watch != nil {
		p.evalCallback, c.watch = m.library.watch(o.Watch)
		p.evalData = c.watch
	}
	if c.handle = m.library.contextNew(m.handle, p); c.handle == 0 {
		unwatch(c.watch)
		return nil, fault.New(fault.Capability, "%s: no context of %d tokens: %w", m.Path, o.Tokens, ErrMemory)
	}
	c.memory = m.library.memory(c.handle)
	c.batch = m.library.batchInit(int32(o.Batch), 0, 1)
	return c, nil
}

// Close frees the context.
func (c *Context) Close() {
	if c.handle == 0 {
		return
	}
	c.model.library.batchFree(c.batch)
	c.model.library.contextFree(c.handle)
	unwatch(c.watch)
	c.handle = 0
}

// Decode runs tokens through the model. What libllama would assert on, and so
// end the process, is checked here.
func (c *Context) Decode(tokens []Token) error {
	if len(tokens) == 0 || len(tokens) > c.options.Batch {
		return fault.New(fault.Failed, "decode of %d tokens; the batch holds 1..%d", len(tokens), c.options.Batch)
	}
	ids, positions := unsafe.Slice(c.batch.token, c.options.Batch), unsafe.Slice(c.batch.position, c.options.Batch)
	counts, sequences := unsafe.Slice(c.batch.seqCount, c.options.Batch), unsafe.Slice(c.batch.seqID, c.options.Batch)
	wanted := unsafe.Slice(c.batch.wantLogit, c.options.Batch)
	c.outputs = 0
	for i, t := range tokens {
		if t.ID < 0 || int(t.ID) >= c.model.Vocabulary() || t.Position < 0 || t.Sequence < 0 || int(t.Sequence) >= c.options.Sequences {
			return fault.New(fault.Failed, "decode: token %d = %+v is out of range", i, t)
		}
		ids[i], positions[i], counts[i], *sequences[i] = t.ID, t.Position, 1, t.Sequence
		wanted[i] = 0
		if t.Logits {
			wanted[i] = 1
			c.outputs++
		}
	}
	if c.outputs > c.options.Outputs {
		return fault.New(fault.Failed, "decode: %d rows of logits asked, %d planned", c.outputs, c.options.Outputs)
	}
	c.batch.count = int32(len(tokens))
	if status := c.model.library.decode(c.handle, c.batch); status != 0 {
		return fault.New(fault.Failed, "libllama cannot decode %d tokens (status %d; 1 = the cache of %d is full)", len(tokens), status, c.options.Tokens)
	}
	return nil
}

// Logits are those after token i of the last Decode, which must have asked for
// them; valid until the next Decode.
func (c *Context) Logits(i int) ([]float32, error) {
	if i < 0 || i >= int(c.batch.count) || unsafe.Slice(c.batch.wantLogit, c.options.Batch)[i] == 0 {
		return nil, fault.New(fault.Failed, "logits of token %d were not asked for", i)
	}
	p := c.model.library.logits(c.handle, int32(i))
	if p == nil {
		return nil, fault.New(fault.Failed, "libllama has no logits of token %d", i)
	}
	return unsafe.Slice(p, c.model.Vocabulary()), nil
}

// Share makes sequence to hold the whole of sequence from; no data is copied.
func (c *Context) Share(from, to int32) {
	c.model.library.memoryCopy(c.memory, from, to, 0, -1)
}

// Forget removes positions from first on from a sequence.
func (c *Context) Forget(sequence, first int32) error {
	if !c.model.library.memoryRemove(c.memory, sequence, first, -1) {
		return fault.New(fault.Failed, "libllama cannot remove positions from %d on of sequence %d", first, sequence)
	}
	return nil
}
