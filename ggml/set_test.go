package ggml

import (
	"encoding/binary"
	"fmt"
	"reflect"
)

// Set sets metadata of any type that Metadata returns.
func (w *Writer) Set(key string, value any) error {
	kind, err := kindOf(reflect.TypeOf(value))
	if err != nil {
		return fmt.Errorf("metadata %s: %w", key, err)
	}
	w.key(key, kind)
	if kind != typeArray {
		w.put(value)
		return nil
	}
	return w.array(value)
}

// kindOf is the type of metadata that stands for a Go type.
func kindOf(t reflect.Type) (uint32, error) {
	kinds := map[reflect.Kind]uint32{reflect.Uint8: typeUint8, reflect.Int8: typeInt8, reflect.Uint16: typeUint16, reflect.Int16: typeInt16,
		reflect.Uint32: typeUint32, reflect.Int32: typeInt32, reflect.Float32: typeFloat32, reflect.Bool: typeBool, reflect.String: typeString,
		reflect.Slice: typeArray, reflect.Uint64: typeUint64, reflect.Int64: typeInt64, reflect.Float64: typeFloat64}
	if t != nil {
		if kind, ok := kinds[t.Kind()]; ok {
			return kind, nil
		}
	}
	return 0, fmt.Errorf("GGUF has no type for %v", t)
}

// array writes the type of the elements, their number and them.
func (w *Writer) array(value any) error {
	v := reflect.ValueOf(value)
	kind := uint32(typeArray)
	if v.Type().Elem().Kind() != reflect.Interface {
		var err error
		if kind, err = kindOf(v.Type().Elem()); err != nil {
			return err
		}
	}
	w.u32(kind)
	w.u64(uint64(v.Len()))
	for i := range v.Len() {
		element := v.Index(i).Interface()
		if kind != typeArray {
			w.put(element)
			continue
		}
		if k, err := kindOf(reflect.TypeOf(element)); err != nil || k != typeArray {
			return fmt.Errorf("an array of arrays holds %T", element)
		}
		if err := w.array(element); err != nil {
			return err
		}
	}
	return nil
}

// put writes a string, a number or a truth value.
func (w *Writer) put(value any) {
	if s, ok := value.(string); ok {
		w.text(s)
		return
	}
	// The kinds left have a fixed size, so that this cannot fail.
	w.values, _ = binary.Append(w.values, binary.LittleEndian, value)
}
