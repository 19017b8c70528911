package exchange

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"

	"onceupon/bindings/student"
	"onceupon/ggml"
	"onceupon/trainer/fault"
	"onceupon/trainer/tokenizer"
)

// HFConfig is the part of a GPT-2 config.json that matters to the student.
type HFConfig struct {
	Architectures []string `json:"architectures,omitempty"`
	ModelType     string   `json:"model_type"`
	Vocab         int      `json:"vocab_size"`
	Positions     int      `json:"n_positions"`
	Width         int      `json:"n_embd"`
	Layers        int      `json:"n_layer"`
	Heads         int      `json:"n_head"`
	Inner         *int     `json:"n_inner"`
	Activation    string   `json:"activation_function"`
	Epsilon       float64  `json:"layer_norm_epsilon"`
	Initializer   float64  `json:"initializer_range"`
	Tied          *bool    `json:"tie_word_embeddings,omitempty"`
	ScaleByLayer  bool     `json:"scale_attn_by_inverse_layer_idx"`
	Scaled        *bool    `json:"scale_attn_weights,omitempty"`
	BOS           int32    `json:"bos_token_id"`
	EOS           int32    `json:"eos_token_id"`
	DType         string   `json:"torch_dtype,omitempty"`
}

// WriteHF writes a student's file as a folder that transformers opens:
// model.safetensors, config.json, generation_config.json, tokenizer.json,
// tokenizer_config.json and the given model card.
func WriteHF(f *ggml.File, dir, card string) error {
	h, v, err := ggml.ReadModel(f)
	if err != nil {
		return err
	}
	t, err := tokenizer.FromParts(v.Tokens, v.Merges, v.Specials)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fault.New(fault.Usage, "export: %w: choose another --out", err)
	}
	tensors, err := hfTensors(f)
	if err != nil {
		return err
	}
	err = writeFile(filepath.Join(dir, "model.safetensors"), func(w io.Writer) error {
		return ggml.WriteSafetensors(w, map[string]string{"format": "pt"}, tensors)
	})
	if err != nil {
		return err
	}
	if err := t.Save(filepath.Join(dir, "tokenizer.json")); err != nil {
		return err
	}
	tied := true
	files := map[string]any{
		"config.json": HFConfig{Architectures: []string{"GPT2LMHeadModel"}, ModelType: "gpt2", Vocab: h.Vocab, Positions: h.Context, Width: h.Width,
			Layers: h.Layers, Heads: h.Heads, Activation: "gelu_new", Epsilon: float64(float32(h.LayerNormEpsilon)), Initializer: 0.02, Tied: &tied,
			BOS: v.End, EOS: v.End, DType: "float32"},
		"generation_config.json": map[string]any{"bos_token_id": v.End, "eos_token_id": v.End, "pad_token_id": v.End, "do_sample": true,
			// As `onceupon generate`: half of the context is the prompt's.
			"temperature": 1.0, "top_k": 0, "top_p": 1.0, "max_new_tokens": min(90, h.Context/2)},
		"tokenizer_config.json": map[string]any{"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": h.Context,
			"clean_up_tokenization_spaces": false, "bos_token": v.Tokens[v.End], "eos_token": v.Tokens[v.End], "pad_token": v.Tokens[v.End]},
	}
	for name, contents := range files {
		text, err := json.MarshalIndent(contents, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), append(text, '\n'), 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, "README.md"), []byte(card), 0o644)
}

func hfTensors(f *ggml.File) ([]ggml.Tensor, error) {
	tensors, err := Tensors(f)
	if err != nil {
		return nil, err
	}
	for i := range tensors {
		t := &tensors[i]
		name, transposed := HFName(student.Parameter{Name: t.Name, Rows: t.Rows, Cols: t.Cols, Matrix: t.Rows > 0})
		t.Name = name
		if transposed {
			read, rows, cols := t.Read, t.Rows, t.Cols
			t.Rows, t.Cols = cols, rows
			t.Read = func() ([]float32, error) {
				x, err := read()
				if err != nil {
					return nil, err
				}
				return transpose(x, rows, cols), nil
			}
		}
	}
	return tensors, nil
}

// writeFile writes a file beside and renames it.
func writeFile(path string, write func(io.Writer) error) error {
	f, err := os.Create(path + ".part")
	if err != nil {
		return err
	}
	defer os.Remove(path + ".part")
	if err := write(f); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(path+".part", path)
}
