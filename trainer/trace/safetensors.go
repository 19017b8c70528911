package trace

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"os"

	"onceupon/trainer/fault"
)

// maxHeader is the format's own limit of the header, in bytes.
const maxHeader = 100 << 20

// ReadSafetensors reads a whole file: 8 bytes with the header's length, the
// header in JSON, the data (github.com/huggingface/safetensors, README). Every
// number of the header is checked against the file before it is used.
func ReadSafetensors(path string) (Arrays, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return Arrays{}, fault.New(fault.Damaged, "trace: %w", err)
	}
	return parseSafetensors(path, raw)
}

func parseSafetensors(path string, raw []byte) (Arrays, error) {
	a := Arrays{path, map[string]Array{}}
	if len(raw) < 8 {
		return a, fault.New(fault.Damaged, "%s: %d bytes are no safetensors file", path, len(raw))
	}
	n := binary.LittleEndian.Uint64(raw)
	if n > uint64(len(raw)-8) || n > maxHeader {
		return a, fault.New(fault.Damaged, "%s: the header claims %d bytes; the file has %d", path, n, len(raw))
	}
	header, data := raw[8:8+n], raw[8+n:]
	var tensors map[string]json.RawMessage
	if err := json.Unmarshal(header, &tensors); err != nil {
		return a, fault.New(fault.Damaged, "%s: header: %w", path, err)
	}
	for name, text := range tensors {
		if name == "__metadata__" {
			continue
		}
		var t struct {
			DType   string  `json:"dtype"`
			Shape   []int   `json:"shape"`
			Offsets []int64 `json:"data_offsets"`
		}
		d := json.NewDecoder(bytes.NewReader(text))
		d.DisallowUnknownFields()
		if err := d.Decode(&t); err != nil {
			return a, fault.New(fault.Damaged, "%s: tensor %q: %w", path, name, err)
		}
		kind, ok := numbers[t.DType]
		if !ok {
			return a, fault.New(fault.Damaged, "%s: tensor %q: type %q is not read here", path, name, t.DType)
		}
		size, ok := count(t.Shape, int64(len(data)))
		if !ok || len(t.Offsets) != 2 || t.Offsets[0] < 0 || t.Offsets[1] > int64(len(data)) || t.Offsets[1]-t.Offsets[0] != size*int64(kind.size) {
			return a, fault.New(fault.Damaged, "%s: tensor %q: shape %v of %s does not fit the bytes %v of %d", path, name, t.Shape, t.DType, t.Offsets, len(data))
		}
		a.ByName[name] = Array{t.Shape, kind.all(data[t.Offsets[0]:t.Offsets[1]])}
	}
	return a, nil
}
