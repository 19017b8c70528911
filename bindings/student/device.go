package student

// #include "student.h"
import "C"

import (
	"fmt"

	"onceupon/trainer/fault"
)

// Device is the card that backend cuda takes.
type Device struct {
	Name            string `json:"name"` // with its architecture
	MemoryBytes     uint64 `json:"memory_bytes"`
	FreeBytes       uint64 `json:"free_bytes"`
	Multiprocessors int    `json:"multiprocessors"`
	Driver          string `json:"driver"` // the CUDA version that the driver is for

	// Peaks by the maker's figures, 0 where they are not known: multiply-adds
	// counted as two, of fp32 and of bf16 by tensor cores; memory.
	FP32GFLOPPerS float64 `json:"fp32_gflop_per_s,omitempty"`
	BF16GFLOPPerS float64 `json:"bf16_gflop_per_s,omitempty"`
	GBPerS        float64 `json:"gb_per_s,omitempty"`
	PeaksFrom     string  `json:"peaks_from,omitempty"` // "clocks and units" of this card, or "data sheet"
}

// CUDADevice describes the card, or says in one line what the machine lacks.
func CUDADevice() (Device, error) {
	d := C.student_device{size: C.sizeof_student_device}
	var message [messageBytes]C.char
	if status := C.student_cuda_device(&d, &message[0], messageBytes); status == C.STUDENT_E_CAPABILITY {
		return Device{}, fault.New(fault.Capability, "%s", C.GoString(&message[0]))
	} else if err := check("device", status, &message); err != nil {
		return Device{}, err
	}
	driver := int(d.driver)
	return Device{
		Name: C.GoString(&d.name[0]), MemoryBytes: uint64(d.memory), FreeBytes: uint64(d.free), Multiprocessors: int(d.multiprocessors),
		Driver:        fmt.Sprintf("%d.%d", driver/1000, driver%1000/10),
		FP32GFLOPPerS: float64(d.fp32_flops) / 1e9, BF16GFLOPPerS: float64(d.bf16_flops) / 1e9, GBPerS: float64(d.bandwidth) / 1e9,
		PeaksFrom: "clocks and units",
	}, nil
}
