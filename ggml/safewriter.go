package ggml

import (
	"encoding/binary"
	"encoding/json"
	"io"
	"math"

	"onceupon/trainer/fault"
)

// WriteSafetensors writes F32 tensors in the given order.
func WriteSafetensors(to io.Writer, metadata map[string]string, tensors []Tensor) error {
	type entry struct {
		Type    string `json:"dtype"`
		Shape   []int  `json:"shape"`
		Offsets [2]int `json:"data_offsets"`
	}
	header := map[string]any{"__metadata__": metadata}
	at := 0
	for _, t := range tensors {
		shape, count := []int{t.Cols}, t.Cols
		if t.Rows > 0 {
			shape, count = []int{t.Rows, t.Cols}, t.Rows*t.Cols
		}
		header[t.Name] = entry{"F32", shape, [2]int{at, at + 4*count}}
		at += 4 * count
	}
	text, err := json.Marshal(header)
	if err != nil {
		return err
	}
	for len(text)%8 != 0 {
		text = append(text, ' ') // the data begins at a multiple of 8
	}
	if _, err := to.Write(append(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text...)); err != nil {
		return err
	}
	for _, t := range tensors {
		x, err := t.Read()
		if err != nil {
			return err
		}
		if len(x) != max(t.Rows, 1)*t.Cols {
			return fault.New(fault.Failed, "tensor %s: %d numbers for %d x %d", t.Name, len(x), t.Rows, t.Cols)
		}
		raw := make([]byte, 4*len(x))
		for i, v := range x {
			binary.LittleEndian.PutUint32(raw[4*i:], math.Float32bits(v))
		}
		if _, err := to.Write(raw); err != nil {
			return err
		}
	}
	return nil
}
