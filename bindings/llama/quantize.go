package llama

import (
	"unsafe"

	"onceupon/trainer/fault"
)

// Quantize turns a matrix [rows][cols] into blocks of a ggml type, bytes
// altogether, with libggml's own quantisation (ggml_quantize_chunk).
func (l *Library) Quantize(ggmlType uint32, rows, cols int, bytes uint64, x []float32) ([]byte, error) {
	if len(x) != rows*cols || len(x) == 0 {
		return nil, fault.New(fault.Failed, "quantize: %d numbers for %d x %d", len(x), rows, cols)
	}
	out := make([]byte, bytes)
	n := l.quantize(int32(ggmlType), unsafe.SliceData(x), unsafe.SliceData(out), 0, int64(rows), int64(cols), 0)
	if n != bytes {
		return nil, fault.New(fault.Failed, "quantize: libggml wrote %d bytes, %d were expected", n, bytes)
	}
	return out, nil
}
