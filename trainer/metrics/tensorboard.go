package metrics

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"
	"sort"
	"time"
)

// TensorBoard appends scalars to an event file: TFRecord frames (length, masked
// CRC-32C, payload, masked CRC-32C) around Event messages of tensorflow's
// event.proto, encoded by hand.
type TensorBoard struct{ file *os.File }

// NewTensorBoard opens a new event file in a folder.
func NewTensorBoard(dir string) (*TensorBoard, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	now := time.Now()
	f, err := os.Create(filepath.Join(dir, fmt.Sprintf("events.out.tfevents.%d.onceupon.%d", now.Unix(), os.Getpid())))
	if err != nil {
		return nil, err
	}
	t := &TensorBoard{f}
	// Event{wall_time, file_version = "brain.Event:2"}
	return t, t.record(append(wallTime(now), lengthDelimited(3, []byte("brain.Event:2"))...))
}

// Close closes the file.
func (t *TensorBoard) Close() error { return t.file.Close() }

// Scalars writes every number of an event, flattened to section/field, at a
// step.
func (t *TensorBoard) Scalars(prefix string, step int64, event any) error {
	text, err := json.Marshal(event)
	if err != nil {
		return err
	}
	var tree any
	if err := json.Unmarshal(text, &tree); err != nil {
		return err
	}
	values := map[string]float64{}
	flatten(prefix, tree, values)
	tags := make([]string, 0, len(values))
	for tag := range values {
		tags = append(tags, tag)
	}
	sort.Strings(tags)
	var summary []byte
	for _, tag := range tags {
		// Summary.Value{tag = 1, simple_value = 2}
		value := lengthDelimited(1, []byte(tag))
		value = append(value, 2<<3|5)
		value = binary.LittleEndian.AppendUint32(value, math.Float32bits(float32(values[tag])))
		summary = append(summary, lengthDelimited(1, value)...)
	}
	// Event{wall_time = 1, step = 2, summary = 5}
	message := append(wallTime(time.Now()), 2<<3)
	message = binary.AppendUvarint(message, uint64(step))
	return t.record(append(message, lengthDelimited(5, summary)...))
}

func flatten(name string, x any, into map[string]float64) {
	switch v := x.(type) {
	case float64:
		into[name] = v
	case map[string]any:
		for k, e := range v {
			flatten(name+"/"+k, e, into)
		}
	case []any:
		for i, e := range v {
			flatten(fmt.Sprintf("%s/%d", name, i+1), e, into)
		}
	}
}

func wallTime(t time.Time) []byte {
	return binary.LittleEndian.AppendUint64([]byte{1<<3 | 1}, math.Float64bits(float64(t.UnixNano())/1e9))
}

func lengthDelimited(field byte, b []byte) []byte {
	out := binary.AppendUvarint([]byte{field<<3 | 2}, uint64(len(b)))
	return append(out, b...)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// masked is TFRecord's rotated CRC.
func masked(b []byte) uint32 {
	crc := crc32.Checksum(b, castagnoli)
	return (crc>>15 | crc<<17) + 0xa282ead8
}

func (t *TensorBoard) record(payload []byte) error {
	head := binary.LittleEndian.AppendUint64(nil, uint64(len(payload)))
	frame := binary.LittleEndian.AppendUint32(head, masked(head))
	frame = append(frame, payload...)
	frame = binary.LittleEndian.AppendUint32(frame, masked(payload))
	_, err := t.file.Write(frame)
	return err
}
