package synthetic

import (
	"fmt"

	"onceupon/ggml"
	"onceupon/trainer/fault"
)

// Names of special tokens of Llama 3, which its chat template is made of.
var llama3Specials = []string{"<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"}

// template is enough of Llama 3's for the rubric to recognise it.
const template = "{{ bos_token }}{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] + '<|eot_id|>' }}{% endfor %}" +
	"{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"

// Token types of llama.cpp (llama_token_type).
const (
	control = 3
	unused  = 5
)

// tokens takes the table of a byte-level BPE, adds Llama 3's special tokens
// where they lack, and pads with unused ones up to n.
func tokens(w *ggml.Writer, vocabulary string, n int) error {
	f, err := ggml.Open(vocabulary)
	if err != nil {
		return err
	}
	defer f.Close()
	if kind, err := f.String("tokenizer.ggml.model"); err != nil {
		return err
	} else if kind != "gpt2" {
		return fault.New(fault.Usage, "synthetic: the tokens of %s are of kind %q, not byte-level BPE: give --vocabulary a model of Llama 3, Qwen or SmolLM2", vocabulary, kind)
	}
	pre, err := f.String("tokenizer.ggml.pre")
	if err != nil {
		return err
	}
	names, err := f.Strings("tokenizer.ggml.tokens")
	if err != nil {
		return err
	}
	merges, err := f.Strings("tokenizer.ggml.merges")
	if err != nil {
		return err
	}
	kinds := make([]int32, len(names))
	raw, _ := f.Metadata()["tokenizer.ggml.token_type"].([]int32)
	if len(raw) != len(names) {
		return fault.New(fault.Damaged, "%s: tokenizer.ggml.token_type has %d entries for %d tokens", vocabulary, len(raw), len(names))
	}
	at := map[string]int{}
	for i, name := range names {
		kinds[i], at[name] = raw[i], i
	}
	for _, name := range llama3Specials {
		if i, there := at[name]; there {
			kinds[i] = control
			continue
		}
		at[name] = len(names)
		names, kinds = append(names, name), append(kinds, control)
	}
	if len(names) > n {
		return fault.New(fault.Usage, "synthetic: %s has %d tokens with Llama 3's special ones, the shape %d", vocabulary, len(names), n)
	}
	for len(names) < n {
		names, kinds = append(names, fmt.Sprintf("<|padding_%d|>", len(names))), append(kinds, unused)
	}
	w.SetString("tokenizer.ggml.model", "gpt2")
	w.SetString("tokenizer.ggml.pre", pre)
	w.SetStrings("tokenizer.ggml.tokens", names)
	w.SetInt32s("tokenizer.ggml.token_type", kinds)
	w.SetStrings("tokenizer.ggml.merges", merges)
	w.SetUint32("tokenizer.ggml.bos_token_id", uint32(at["<|begin_of_text|>"]))
	w.SetUint32("tokenizer.ggml.eos_token_id", uint32(at["<|eot_id|>"]))
	w.SetBool("tokenizer.ggml.add_bos_token", true)
	w.SetString("tokenizer.chat_template", template)
	return nil
}
