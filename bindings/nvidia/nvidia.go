// Package nvidia asks NVIDIA's driver, opened at run time, which cards there
// are and what they can run. It needs no CUDA toolkit.
package nvidia

import (
	"fmt"
	"strings"

	"github.com/ebitengine/purego"

	"onceupon/trainer/fault"
)

// Card is one card.
type Card struct {
	Name         string `json:"name"`
	Major, Minor int    // compute capability
	Bytes        uint64 `json:"bytes"`
}

// Capability is the compute capability times ten: 90 for 9.0.
func (c Card) Capability() int { return 10*c.Major + c.Minor }

// Driver is what the driver says.
type Driver struct {
	CUDA  int // the newest CUDA it runs: 13000 is 13.0
	Cards []Card
}

func (d Driver) String() string {
	var cards []string
	for _, c := range d.Cards {
		cards = append(cards, fmt.Sprintf("%s (%d.%d, %.0f GiB)", c.Name, c.Major, c.Minor, float64(c.Bytes)/(1<<30)))
	}
	return fmt.Sprintf("driver of CUDA %d.%d, %s", d.CUDA/1000, d.CUDA%1000/10, strings.Join(cards, ", "))
}

// Attributes of cuDeviceGetAttribute.
const (
	computeMajor = 75
	computeMinor = 76
)

// Open asks the driver library at path, "" being the system's. No driver and
// no card are fault.Capability.
func Open(path string) (Driver, error) {
	if path == "" {
		path = "libcuda.so.1"
	}
	var d Driver
	h, err := purego.Dlopen(path, purego.RTLD_NOW)
	if err != nil {
		return d, fault.New(fault.Capability, "no NVIDIA driver on this machine (%s cannot be opened)", path)
	}
	var (
		start     func(flags uint32) int32
		version   func(v *int32) int32
		count     func(n *int32) int32
		get       func(device *int32, i int32) int32
		name      func(text *byte, n, device int32) int32
		attribute func(v *int32, which, device int32) int32
		memory    func(n *uint64, device int32) int32
	)
	for symbol, f := range map[string]any{"cuInit": &start, "cuDriverGetVersion": &version, "cuDeviceGetCount": &count, "cuDeviceGet": &get,
		"cuDeviceGetName": &name, "cuDeviceGetAttribute": &attribute, "cuDeviceTotalMem_v2": &memory} {
		if _, err := purego.Dlsym(h, symbol); err != nil {
			return d, fault.New(fault.Capability, "%s has no %s: it is not NVIDIA's driver library", path, symbol)
		}
		purego.RegisterLibFunc(f, h, symbol)
	}
	if status := start(0); status == 100 {
		return d, fault.New(fault.Capability, "the NVIDIA driver sees no card")
	} else if status != 0 {
		return d, fault.New(fault.Capability, "the NVIDIA driver does not start (cuInit gave %d): reload it, or restart the machine", status)
	}
	var v, n int32
	if version(&v) != 0 || count(&n) != 0 || n < 1 {
		return d, fault.New(fault.Capability, "the NVIDIA driver sees no card")
	}
	d.CUDA = int(v)
	for i := range n {
		var device, major, minor int32
		var c Card
		text := make([]byte, 128)
		if get(&device, i) != 0 || name(&text[0], int32(len(text)), device) != 0 || attribute(&major, computeMajor, device) != 0 ||
			attribute(&minor, computeMinor, device) != 0 || memory(&c.Bytes, device) != 0 {
			return d, fault.New(fault.Capability, "the NVIDIA driver does not describe card %d", i)
		}
		c.Name, _, _ = strings.Cut(string(text), "\x00")
		c.Major, c.Minor = int(major), int(minor)
		d.Cards = append(d.Cards, c)
	}
	return d, nil
}
